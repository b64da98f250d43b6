"""Defer to a machine's boot what a container cannot do while it bakes: settings of the kernel, devices, some services.

Such a state does its persistent part (a file of sysctl.d, a line of fstab, an enabled unit) and succeeds; the rest is
recorded as ``deferred``, with the unit that applies it at boot. A state without a persistent part fails and says what
to do. Runs in the machine that bakes, around Salt's own state functions; it replaces none of them.
"""

from __future__ import annotations

import functools
import glob
import inspect
import os
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saltext.immutable import systemd
from saltext.immutable.builder.states import deferred_network, failed_state, steady
from saltext.immutable.builder.states.deferred_call import AT_LAUNCH, Call, Result
from saltext.immutable.builder.states.trace import Trace, wrap_method
from saltext.immutable.guard.reach import units as guard_units

_IN_VM = "if only the bake needs it, bake in a machine with a kernel of its own (bake_in: vm)"
_MARK = "_immutable_deferred"
_MODULES_FILE = "/etc/modules-load.d/salt_managed.conf"
_REFUSED = re.compile(
    r"read-only file system|operation not permitted|permission denied|does not exist|no such file", re.IGNORECASE
)
_SYSCTL_FILES = ("/etc/sysctl.d/*.conf", "/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf")
_WHOLE = ("vm", "kernel", "fs")
"""Folders of /proc/sys that a container sees whole."""
_NO_PROGRAM = "'sysctl' cannot be found"
"""What Salt says without the package procps, which systemd-sysctl does not need."""
_NOT_ALLOWED = re.compile(r"operation not permitted|permission denied|must be superuser", re.IGNORECASE)
_DEVICES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID=")
_KERNEL = re.compile(r"/proc/sys/|/sys/|\b(?:modprobe|insmod|rmmod|swapon|setenforce)\b|\bsysctl\b.*=")
_STORAGE = ("blockdev", "btrfs", "lvm", "mdadm", "raid", "quota", "zfs", "zpool")
"""State modules that make or change the storage of one machine."""

_OF_MINION = {
    "schedule": (
        "a sealed machine runs no scheduled jobs of its minion either. Take the state out of the recipe's states, and "
        "write a timer of systemd, or a job of the master's schedule"
    ),
    "beacon": "write what the minion of each machine reads when it starts: beacons in a file of /etc/salt/minion.d",
}
"""State modules that speak with the minion, and what to do in place of them."""


def sysctl(call: Call) -> Result:
    """`sysctl.present`: Salt writes the file, then cannot set the value; systemd-sysctl sets it at boot."""
    file = call.get("config") or call.salt["sysctl.default_config"]()
    before = _configured(call, file)
    result = call.run()
    unset = _REFUSED.search(str(result["comment"])) or _NO_PROGRAM in str(result["comment"])
    if result["result"] is False and unset and _configured(call, file) is not None and not _is_unknown(call.name):
        if not _is_read_at_boot(file):
            return call.failed(f"no boot reads {file}; let config name a file like {_SYSCTL_FILES[0]}")
        value = call.get("value")
        changes = {} if before == _configured(call, file) else {call.name: value}
        return call.deferred(f"{call.name} = {value}", "systemd-sysctl.service", changes)
    return result


def _is_unknown(setting: str) -> bool:
    """Return whether this kernel has no such setting, though it has those beside it. Networks hide some of theirs."""
    file = Path("/proc/sys", setting.replace(".", "/"))
    return file.parts[3] in _WHOLE and file.parent.is_dir() and not file.exists()


def _is_read_at_boot(file: str) -> bool:
    """Return whether systemd-sysctl reads a file, perhaps by a link."""
    read = (os.path.realpath(each) for pattern in _SYSCTL_FILES for each in glob.glob(pattern))
    return os.path.realpath(file) in read


def _configured(call: Call, file: str) -> Any:
    """Return the value that a file of sysctl.d has for the setting of a call, None where it has none."""
    return (call.salt["sysctl.show"](config_file=file) or {}).get(call.name)


def kmod(call: Call) -> Result:
    """`kmod.present` and `kmod.absent`: edit the list of modules that systemd-modules-load loads at boot."""
    wanted = call.function == "kmod.present"
    if not call.get("persist"):
        changed = "loads a module into" if wanted else "removes a module from"
        return call.failed(
            f"{call.function} {changed} the running kernel, and a container has none of its own; give persist: True, "
            f"which does it at the boot of each machine, or {AT_LAUNCH}; {_IN_VM}"
        )
    given = call.get("mods")  # Salt takes the name unless it is a list
    mods = [str(each) for each in given] if given and isinstance(given, list | tuple) else [call.name]
    changes = _list_modules(mods, wanted)
    what = f"{'load' if wanted else 'do not load'} {', '.join(mods)} into the kernel"
    return call.deferred(what, "systemd-modules-load.service", changes)


def _list_modules(mods: Collection[str], wanted: bool) -> dict[str, str]:
    """Add modules to the list of those that are loaded at boot, or remove them; return the changes."""
    file = Path(_MODULES_FILE)
    lines = file.read_text().splitlines() if file.exists() else []
    names = {mod.split()[0] for mod in mods}
    left = [line for line in lines if line.partition(" ")[0] not in names]
    now = [*left, *mods] if wanted else left
    if sorted(now) == sorted(lines):
        return {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in now))
    return {mod: "loaded at boot" if wanted else "not loaded at boot" for mod in mods}


def swap(call: Call) -> Result:
    """`mount.swap`: Salt writes fstab after it could not activate the swap."""
    result = call.run_caught()
    if result["result"] is not False:
        return result
    if not call.get("persist"):
        return call.failed(_of_running(call, "activates swap in"))
    entry = ["none", call.name, "swap", ["defaults"], 0, 0, call.get("config")]
    return _in_fstab(call, entry, f"activate the swap {call.name}")


def mounted(call: Call) -> Result:
    """`mount.mounted`: what cannot be mounted in a container, a device above all, gets its line in fstab."""
    result, device = call.run_caught(), str(call.get("device"))
    if result["result"] is not False or not call.get("mount"):
        return result
    if not device.startswith(_DEVICES) and not _NOT_ALLOWED.search(str(result["comment"])):
        return result
    if not call.get("persist"):
        return call.failed(_of_running(call, f"mounts {device} in"))
    place = call.name.rstrip("/") or "/"
    if call.get("mkmnt"):
        os.makedirs(place, exist_ok=True)
    if not os.path.isdir(place):
        return call.failed(f"{place} is no directory; give mkmnt: True, or let a file.directory state make it")
    options = call.get("opts")
    entry = [place, device, call.get("fstype"), options if options is not None else "defaults"]
    entry += [call.get("dump"), call.get("pass_num"), call.get("config")]
    return _in_fstab(call, entry, f"mount {device} on {place}", match_on=call.get("match_on") or "auto")


def remounted(call: Call) -> Result:
    """`mount.mod_watch`: what is not mounted here is not mounted again."""
    if os.path.ismount(call.name):
        return call.run()
    return {"name": call.name, "result": True, "changes": {}, "comment": f"{call.name} is mounted at boot"}


def _in_fstab(call: Call, entry: Sequence[Any], what: str, **how: Any) -> Result:
    """Write a line of fstab and leave the rest to the boot."""
    from salt.exceptions import CommandExecutionError

    try:
        added = call.salt["mount.set_fstab"](*entry, **how)
    except CommandExecutionError as err:
        return call.failed(str(err))
    return call.deferred(what, "systemd-fstab-generator", {} if added == "present" else {"persist": added})


def _of_running(call: Call, does: str) -> str:
    return f"{call.function} {does} the machine that bakes only; give persist: True, or {AT_LAUNCH}"


def storage(call: Call) -> Result:
    """Refuse what makes storage of one machine; that something is absent is as true in an image."""
    if call.function.endswith("absent"):
        return call.run()
    return call.failed(
        f"{call.function} makes or changes the storage of one machine, and an image has none; take the state out of "
        f"the recipe's states, and {AT_LAUNCH}"
    )


def of_minion(call: Call) -> Result:
    """`schedule.*` and `beacon.*` speak with a running minion: say that there is none, and what to write in place."""
    module, _, function = call.function.partition(".")
    if function in ("absent", "disabled"):
        comment = f"no minion runs in a bake that {call.name} could be taken from"
        return {"name": call.name, "result": True, "changes": {}, "comment": comment}
    return call.failed(f"{call.function} changes a running minion, and none runs in a bake; {_OF_MINION[module]}")


def command(call: Call) -> Result:
    """`cmd.*`: say why a command failed that needs the kernel of the host."""
    result = call.run()
    if result["result"] is not False:
        return result
    output = f"{result.get('changes', {})} {result['comment']}"
    used = _KERNEL.search(f"{call.name} {call.get('source') or ''}")
    if used and (_REFUSED.search(output) or "/lib/modules" in output):
        hint = (
            f"The command needs the kernel of the host ({used[0].strip()}), which a bake does not change. Write what a "
            f"boot applies (sysctl.present, kmod.present with persist: True, a unit), or {AT_LAUNCH}; {_IN_VM}"
        )
        result = {**result, "comment": f"{result['comment']}\n{hint}"}
    return result


def service(call: Call) -> Result:
    """`service.running` and its kin: record what the states declare of a service, for the health of machines."""
    starts = call.function in ("service.running", "service.mod_watch")
    result = _started(call) if starts else call.run()
    unit = systemd.full_name(call.name)
    is_one = guard_units.is_name(unit) and not systemd.is_template(unit)
    if result["result"] is not False and call.function != "service.mod_watch" and is_one:
        call.trace.append("service", unit, starts and call.get("enable") is not False)
    return result


def _started(call: Call) -> Result:
    """Start a service; a unit that cannot start in a container is enabled and starts at boot, where it can."""
    unit = systemd.full_name(call.name)
    reason = "at_boot of the recipe names it" if unit in call.at_boot else systemd.missing_device(unit)
    if reason is None:
        result = call.run()
        if result["result"] is not False:
            return result
        unmet = systemd.unmet_condition(unit)
        if unmet is None or not systemd.is_of_place(unmet):
            hint = f"If it cannot run in a container, at_boot: [{call.name}] in the recipe enables it without a start."
            said = [result["comment"], f"{unmet} is not met" if unmet else "", systemd.describe(unit)]
            return {**result, "comment": "\n".join(filter(None, [*said, failed_state.config_errors(unit), hint]))}
        reason = f"{unmet} is not met"
    enabled = bool(call.salt["service.enabled"](call.name))
    if not enabled and not (call.get("enable") and call.salt["service.enable"](call.name)):
        return call.failed(
            f"{unit} cannot start in the bake ({reason}), and nothing starts it at boot; give enable: True"
        )
    return call.deferred(f"start {unit}: {reason}", unit, {} if enabled else {call.name: "enabled"})


Handler = Callable[[Call], Result]
_FUNCTIONS: Mapping[str, Handler] = {
    "sysctl.present": sysctl,
    "kmod.present": kmod,
    "kmod.absent": kmod,
    "mount.swap": swap,
    "mount.mounted": mounted,
    "mount.mod_watch": remounted,
    "network.managed": deferred_network.interface,
    "network.routes": deferred_network.network,
    "network.system": deferred_network.network,
    "service.running": service,
    "service.dead": service,
    "service.disabled": service,
    "service.masked": service,
    "service.mod_watch": service,
    "ssh_known_hosts.present": steady.known_host,
    "user.present": steady.user,
    **{f"cmd.{name}": command for name in ("run", "script", "wait", "wait_script", "mod_watch")},
}
_MODULES: Mapping[str, Handler] = {
    "iptables": deferred_network.firewall,
    "nftables": deferred_network.firewall,
    "firewalld": deferred_network.firewalld,
    **dict.fromkeys(_STORAGE, storage),
    **dict.fromkeys(_OF_MINION, of_minion),
}


_OF_KERNEL = (kmod, command)
"""Handlers without a use where the machine that bakes has a kernel of its own. The others try first."""


def handler(function: str) -> Handler | None:
    """Return what is called in place of a state function, None where Salt's own is called."""
    return _FUNCTIONS.get(function) or _MODULES.get(function.partition(".")[0])


@dataclass(frozen=True)
class Deferral:
    """Puts the handlers around the state functions that Salt loads."""

    trace: Trace
    at_boot: Collection[str]
    own_kernel: bool = False
    """Whether the machine that bakes has a kernel of its own: what would need the host's is not left to the boot."""

    def watch(self, loader: Any) -> None:
        """Wrap the state functions that a loader (Salt's class ``LazyLoader``) loads from now on."""

        def loading(original: Callable[..., Any]) -> Callable[..., Any]:
            def load(own: Any, *args: Any, **kwargs: Any) -> Any:
                found = original(own, *args, **kwargs)
                if own.tag == "states":
                    self.wrap(own._dict)
                return found

            return load

        wrap_method(loader, "_load_module", loading)

    def wrap(self, functions: dict[str, Any]) -> None:
        """Wrap those of ``functions`` (by full name) that have a handler, each once."""
        for name, function in list(functions.items()):
            handle = handler(name)
            at_once = self.own_kernel and handle in _OF_KERNEL
            if handle is not None and not at_once and not hasattr(function, _MARK):
                functions[name] = self._around(name, function, handle)
                setattr(functions[name], _MARK, True)

    def _around(self, name: str, function: Any, handle: Handler) -> Any:
        def called(*args: Any, **kwargs: Any) -> Result:
            if function.__globals__["__opts__"].get("test"):
                return dict(function(*args, **kwargs))
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
            salt = function.__globals__["__salt__"]
            run = functools.partial(function, *args, **kwargs)
            return handle(Call(name, given, salt, run, self.trace, self.at_boot))

        return _with_globals_of(function, called)


def _with_globals_of(function: Any, called: Callable[..., Result]) -> Any:
    """Return a function that calls ``called``, with the globals of ``function``: Salt puts data of the state there."""

    def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]  # it uses no name but that of its closure
        return called(*args, **kwargs)

    made = types.FunctionType(wrapper.__code__, function.__globals__, function.__name__, None, wrapper.__closure__)
    return functools.wraps(function)(made)
