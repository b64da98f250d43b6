"""States of the kernel of a machine: what lasts is written in the bake, systemd applies it at boot."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from saltext.immutable.builder.states.handlers.call import AT_LAUNCH, IN_VM, Call, Result

SYSCTL = "systemd-sysctl.service"
MODULES = "systemd-modules-load.service"
_MODULES_FILE = "/etc/modules-load.d/salt_managed.conf"
_MODULES_FILES = tuple(f"{place}/modules-load.d/*.conf" for place in ("/etc", "/usr/local/lib", "/usr/lib"))
_SYSCTL_FILES = ("/etc/sysctl.d/*.conf", "/usr/local/lib/sysctl.d/*.conf", "/usr/lib/sysctl.d/*.conf")
_PROC = "/proc/sys"
_WHOLE = ("vm.", "kernel.", "fs.", "vm/", "kernel/", "fs/")
"""Settings that a container sees as its host does begin so."""
_NO_PROGRAM = "'sysctl' cannot be found"
"""What Salt says without the package procps, which systemd-sysctl does not need."""
_SELINUX, _SELINUX_CONFIG = Path("/sys/fs/selinux/enforce"), Path("/etc/selinux/config")
REFUSED = re.compile(
    r"read-only file system|operation not permitted|permission denied|does not exist|no such file", re.IGNORECASE
)
"""What is said where a container may not do something, or sees less of the kernel than its host."""


def sysctl(call: Call) -> Result:
    """`sysctl.present`: Salt writes the file, then cannot set the value; systemd-sysctl sets it at boot."""
    file = call.get("config") or call.salt["sysctl.default_config"]()
    before = _configured(call, file)
    result = call.run()
    if result["result"] is not False or _configured(call, file) is None:
        return result
    if is_unknown(call.name):
        hint = "The kernel of the builder has no such setting. Correct its name; if that of the machines has it,"
        return {**result, "comment": f"{result['comment']}\n{hint} {IN_VM} or {AT_LAUNCH}"}
    said, value = str(result["comment"]), call.get("value")
    if not (REFUSED.search(said) or _NO_PROGRAM in said or is_of_host(call.name)):
        return result
    if is_no_number(call.name, value):
        return call.failed(f"{call.name} takes numbers only, and no kernel takes {value!r} for it; give value a number")
    if not is_read_at_boot(file):
        return call.failed(f"no boot reads {file}; let config name a file like {_SYSCTL_FILES[0]}")
    changes = {} if before == _configured(call, file) else {call.name: value}
    return call.deferred(f"{call.name} = {value}", SYSCTL, changes)


def _file_of(setting: str) -> Path:
    """Return the file of a setting, in which dots and slashes may have changed places."""
    dotted = "/" not in setting or 0 < setting.find(".") < setting.find("/")
    return Path(_PROC, setting.translate(str.maketrans("./", "/.")) if dotted else setting)


def is_unknown(setting: str) -> bool:
    """Return whether this kernel has no such setting, though it has those beside it. Networks hide some of theirs."""
    file = _file_of(setting)
    return setting.startswith(_WHOLE) and file.parent.is_dir() and not file.exists()


def is_of_host(setting: str) -> bool:
    """Return whether a network has a setting of its host, which it may read only."""
    file = _file_of(setting)
    return file.is_relative_to(f"{_PROC}/net") and file.exists() and not file.stat().st_mode & 0o222


def is_no_number(setting: str, value: Any) -> bool:
    """Return whether a setting has numbers, and the value has words that are none."""
    try:
        now = _file_of(setting).read_text().split()
    except (OSError, ValueError):
        return False
    return bool(now) and all(map(_is_number, now)) and not all(map(_is_number, str(value).split()))


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]+|\d+)", word))


def is_read_at_boot(file: str) -> bool:
    """Return whether systemd-sysctl reads a file, perhaps by a link."""
    return os.path.realpath(file) in map(os.path.realpath, _read(_SYSCTL_FILES))


def settings(files: Collection[str] = ()) -> dict[str, str]:
    """Return what files have of settings, name (with dots) to value; without ``files``, all that a boot reads."""
    found: dict[str, str] = {}
    for file in files or _read(_SYSCTL_FILES):
        for line in _lines(file):
            name, sign, value = line.partition("=")
            if sign and not line.startswith("-") and "*" not in name:
                found[dotted(name)] = " ".join(value.split())
    return found


def dotted(setting: str) -> str:
    """Return the name of a setting with dots."""
    return str(_file_of(setting.strip()).relative_to(_PROC)).translate(str.maketrans("./", "/."))


def modules() -> set[str]:
    """Return the modules that a boot loads."""
    return {line.split()[0].replace("-", "_") for file in _read(_MODULES_FILES) for line in _lines(file)}


def _read(patterns: Collection[str]) -> list[str]:
    """Return the files in the order in which systemd reads them: by name; of two of a name the first folder's."""
    found: dict[str, str] = {}
    for file in (each for pattern in patterns for each in glob.glob(pattern)):
        found.setdefault(os.path.basename(file), file)
    return [found[name] for name in sorted(found)]


def _lines(file: str) -> Iterator[str]:
    try:
        lines = Path(file).read_text(errors="replace").splitlines()
    except OSError:
        return
    yield from (line.strip() for line in lines if line.strip() and line.strip()[0] not in "#;")


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
            f"which does it at the boot of each machine, or {AT_LAUNCH}; if only the bake needs it, {IN_VM}"
        )
    given = call.get("mods")  # Salt takes the name unless it is a list
    mods = [str(each) for each in given] if given and isinstance(given, list | tuple) else [call.name]
    changes = _list_modules(mods, wanted)
    what = f"{'load' if wanted else 'do not load'} {', '.join(mods)} into the kernel"
    return call.deferred(what, MODULES, changes)


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


def sysfs(call: Call) -> Result:
    """`sysfs.present`: it has no part that lasts, also where the kernel happens to have the value."""
    path = f"/sys/{call.name.removeprefix('/sys/').lstrip('/')}"
    return call.failed(
        f"{call.function} writes to the running kernel, and a container has none of its own; let file.managed write "
        f"`w {path} - - - - {call.get('value')}` into a file of /etc/tmpfiles.d, which systemd applies at boot, or "
        f"{AT_LAUNCH}"
    )


def ipset(call: Call) -> Result:
    """`ipset.*`: Salt saves no set anywhere. That one is absent is as true in an image."""
    if call.function.endswith("absent"):
        return call.run_caught()
    return call.failed(
        f"{call.function} changes the kernel of the machine that bakes, and no machine gets it; let file.managed write "
        f"what `ipset restore` reads, and a unit that calls it, or {AT_LAUNCH}"
    )


def selinux(call: Call) -> Result:
    """`selinux.*`: the mode is in a file that a boot reads; the rest needs a kernel that has SELinux."""
    result = call.run_caught()
    if result["result"] is not False or _SELINUX.exists():
        return result
    mode = call.name.lower()
    if call.function == "selinux.mode" and f"SELINUX={mode}" in _lines(str(_SELINUX_CONFIG)):
        return call.deferred(f"SELinux is {mode}", "the kernel, where it has SELinux", {})
    hint = f"The kernel of the builder has no SELinux; where that of the machines has it, {AT_LAUNCH}, or {IN_VM}"
    return {**result, "comment": f"{result['comment']}\n{hint}"}
