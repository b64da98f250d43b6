"""Defer to a machine's boot what a container cannot do while it bakes: settings of the kernel, devices, some services.

Such a state does its persistent part (a file of sysctl.d, a line of fstab, an enabled unit) and succeeds; the rest is
recorded as ``deferred``, with the unit that applies it at boot. A state without a persistent part fails and says what
to do. Runs in the machine that bakes, around Salt's own state functions; it replaces none of them.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.immutable import systemd
from saltext.immutable.builder.states import failed_state
from saltext.immutable.builder.states.handlers import commands, kernel, minion, mounts, network, salted_hashes
from saltext.immutable.builder.states.handlers.call import AT_LAUNCH, Call, Result
from saltext.immutable.builder.states.trace import Trace, wrap_method
from saltext.immutable.guard.reach import units as guard_units

_MARK = "_immutable_deferred"
_STORAGE = ("blockdev", "btrfs", "lvm", "mdadm", "raid", "quota", "zfs", "zpool")
"""State modules that make or change the storage of one machine."""


def storage(call: Call) -> Result:
    """Refuse what makes storage of one machine; that something is absent is as true in an image."""
    if call.function.endswith("absent"):
        return call.run()
    return call.failed(
        f"{call.function} makes or changes the storage of one machine, and an image has none; take the state out of "
        f"the recipe's states, and {AT_LAUNCH}"
    )


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
        if result["result"] is not False or systemd.is_absent(unit):
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
    "sysctl.present": kernel.sysctl,
    "sysfs.present": kernel.sysfs,
    "kmod.present": kernel.kmod,
    "kmod.absent": kernel.kmod,
    "mount.swap": mounts.swap,
    "mount.mounted": mounts.mounted,
    "mount.fstab_present": mounts.fstab,
    "mount.mod_watch": mounts.remounted,
    "network.managed": network.interface,
    "network.routes": network.network,
    "network.system": network.network,
    "service.running": service,
    "service.dead": service,
    "service.disabled": service,
    "service.masked": service,
    "service.mod_watch": service,
    "ssh_known_hosts.present": salted_hashes.known_host,
    "user.present": salted_hashes.user,
    **{f"cmd.{name}": commands.command for name in ("run", "script", "wait", "wait_script", "mod_watch")},
    **{f"module.{name}": commands.module for name in ("run", "wait", "mod_watch")},
}
_MODULES: Mapping[str, Handler] = {
    "iptables": network.firewall,
    "nftables": network.firewall,
    "firewalld": network.firewalld,
    "ipset": kernel.ipset,
    "selinux": kernel.selinux,
    **dict.fromkeys(_STORAGE, storage),
    **dict.fromkeys(minion.INSTEAD, minion.running),
}


_OF_KERNEL = (kernel.kmod, commands.command)
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
