"""Commands of states (`cmd.run` and its kin) that need the kernel of the host.

One that only applies at once what the image has anyway, ``sysctl --system`` or ``modprobe`` of a module that a boot
loads, is left to the boot. Others fail and say what to do.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from saltext.immutable import systemd
from saltext.immutable.builder.states.handlers import kernel
from saltext.immutable.builder.states.handlers.call import AT_LAUNCH, IN_VM, Call, Result
from saltext.immutable.builder.states.handlers.mounts import DEVICES, FSTAB

_APPARMOR, _PROFILES = "apparmor.service", "/etc/apparmor.d/"
_FSTAB = Path("/etc/fstab")
_PROGRAMS = (
    "aa-complain|aa-disable|aa-enforce|apparmor_parser|auditctl|chrt|cryptsetup|depmod|dmesg|ebtables|ethtool|hwclock|insmod"
    r"|ip|ip6?tables(?:-restore|-save)?|ipset|losetup|lvcreate|mdadm|mkfs(?:\.\w+)?|mkswap|modprobe|mount|nft|parted|pvcreate"
    "|rmmod|setenforce|setsebool|sgdisk|swapoff|swapon|sysctl|tc|timedatectl|udevadm|ulimit|umount|vgcreate|zpool"
)
_PROGRAM = r"(?<![\w./-])(?:/(?:usr/)?s?bin/)?"
_KERNEL = re.compile(rf"/proc/sys/|/sys/|{_PROGRAM}(?:{_PROGRAMS}|date(?= +(?:-s|--set)))(?![\w.-])")
"""What a command has that sets the kernel, its network or its devices."""
_STOPPED = re.compile(
    rf"{kernel.REFUSED.pattern}|invalid argument|no such device|unknown device type|kind is unknown|must be (?:super)?"
    "(?:user|root)|/lib/modules|suitable fs|interface file missing|--subdomainfs|hardware clock|not supported"
    "|special device|can't find|cannot find",
    re.IGNORECASE,
)
_QUIET = re.compile(r"\s*(?:&|\d)?>+\s*(?:/dev/null|&1)|\s*2>&1")
_WRITES = re.compile(r"""echo\s+(?:-n\s+)?(["']?)([^"'|<>$`]*?)\1\s*>\s*/proc/sys/(\S+)""")
_SHELL = re.compile(r"[|<>$`(){}]")
_AND = re.compile(r"&&|;|\n")
_JOB = re.compile(r"Job for (\S+) failed")
_NOT_FOUND = 127
_NETWORK = re.compile(
    r"(?:sudo +)?(?:/(?:usr/)?s?bin/)?(?:ip(?: +-\S+)* +[alrn]\w* +(?:add|del\w*|set|replace|change|flush)"
    r"|tc +\w+ +(?:add|replace|change)|ethtool +-[A-Z]|ipset +(?:create|add|-N|-A)) "
)
"""A command that changes the network of the machine that bakes, which no file of the image has."""

Left = tuple[str, str]
"""What is left to the boot, and what applies it there."""


def command(call: Call) -> Result:
    """`cmd.*`: leave to the boot what it applies anyway; say why a command failed that needs the kernel of the host."""
    result = call.run()
    if result["result"] is not False:
        for part in filter(_NETWORK.match, map(str.strip, _AND.split(call.name))):
            call.lost(f"{part}: changes the network of the machine that bakes only; {AT_LAUNCH}, or write a unit")
        return result
    changes = result["changes"] if isinstance(result.get("changes"), Mapping) else {}
    stderr = str(changes.get("stderr") or "")
    output = f"{changes.get('stdout') or ''}\n{stderr}"
    refused = changes.get("retcode") != _NOT_FOUND and _is_refused(stderr)
    if refused and (left := left_to_boot(call.name)):
        return _deferred(call, result, left)
    return explained(result, _used(f"{call.name} {call.get('source') or ''}") or _used(output), output)


def _deferred(call: Call, result: Result, left: Sequence[Left]) -> Result:
    done = [call.deferred(what, unit, result["changes"]) for what, unit in left]
    return {**result, **done[-1], "comment": "\n".join(str(each["comment"]) for each in done)}


def _is_refused(stderr: str) -> bool:
    """Return whether each line of an output is about what a container may not, or sees less of."""
    lines = [line for line in stderr.splitlines() if line.strip() and "dmesg(1)" not in line]
    return bool(lines) and all(map(_STOPPED.search, lines))


def explained(result: Result, used: str, output: str = "") -> Result:
    """Return the result of a state that failed, with what an operator has to know of kernel and units.

    ``used``: what of the state needs the kernel, or ''. ``output``: what its commands wrote.
    """
    said = f"{result['comment']}\n{output}"
    notes = [systemd.describe(unit) for unit in dict.fromkeys(_JOB.findall(said))]
    if used and _STOPPED.search(said):
        notes.append(
            f"The state needs the kernel of the host ({used}), which a bake does not change. Write what a boot applies "
            f"(sysctl.present, kmod.present with persist: True, a unit), or {AT_LAUNCH}; if only the bake needs it, "
            f"{IN_VM}"
        )
    return {**result, "comment": "\n".join([str(result["comment"]), *filter(None, notes)])} if notes else result


def _used(text: str) -> str:
    found = _KERNEL.search(text)
    return found[0].strip() if found else ""


def left_to_boot(line: str) -> list[Left]:
    """Return what the commands of a shell line set that a boot sets, too; nothing if one of them does other things."""
    found = [_left(part.strip()) for part in _AND.split(_QUIET.sub("", line)) if part.strip()]
    return [each for each in found if each] if all(found) else []


def _left(text: str) -> Left | None:
    if written := _WRITES.fullmatch(text):
        return _settings({kernel.dotted(written[3]): written[2].strip()})
    if _SHELL.search(text):
        return None
    try:
        program, *words = [word for word in shlex.split(text) if word != "sudo"] or [""]
    except ValueError:
        return None
    known = _COMMANDS.get(program.rpartition("/")[2])
    return known(words) if known else None


def _sysctl(words: Sequence[str]) -> Left | None:
    given = dict(word.partition("=")[::2] for word in words if "=" in word and not word.startswith("-"))
    if given:
        return _settings({kernel.dotted(name.strip()): value.strip() for name, value in given.items()})
    loads = [word for word in words if word in ("-p", "--load", "--system") or word.startswith("--load=")]
    files = [word.partition("=")[2] for word in loads if "=" in word] + [word for word in words if word.startswith("/")]
    files = files or ([] if "--system" in loads else ["/etc/sysctl.conf"])
    if not loads or not all(map(kernel.is_read_at_boot, files)):
        return None
    wanted = kernel.settings(files)
    if any(kernel.is_unknown(name) or kernel.is_no_number(name, value) for name, value in wanted.items()):
        return None
    return f"apply {', '.join(files) or 'the files of /etc/sysctl.d'}", kernel.SYSCTL


def _settings(wanted: Mapping[str, str]) -> Left | None:
    """Return that a boot makes these settings, if a file has them."""
    at_boot = kernel.settings()
    if any(at_boot.get(name) != " ".join(value.split()) or kernel.is_unknown(name) for name, value in wanted.items()):
        return None
    return ", ".join(f"{name} = {value}" for name, value in wanted.items()), kernel.SYSCTL


def _modprobe(words: Sequence[str]) -> Left | None:
    mods = [word for word in words if not word.startswith("-") and "=" not in word]
    if not mods or {mod.replace("-", "_") for mod in mods} - kernel.modules() or {"-r", "--remove"} & {*words}:
        return None
    return f"load {', '.join(mods)} into the kernel", kernel.MODULES


def _lines_of_fstab() -> list[list[str]]:
    lines = _FSTAB.read_text().splitlines() if _FSTAB.exists() else []
    return [words for words in map(str.split, lines) if len(words) > 2 and not words[0].startswith("#")]


def _swapon(words: Sequence[str]) -> Left | None:
    swaps = [line[0] for line in _lines_of_fstab() if line[2] == "swap"]
    given = swaps if {*words} & {"-a", "--all"} else [word for word in words if not word.startswith("-")]
    if not given or {*given} - {*swaps} or not all(each.startswith(DEVICES) or Path(each).exists() for each in given):
        return None
    return f"activate the swap {', '.join(given)}", FSTAB


def _mount(words: Sequence[str]) -> Left | None:
    """Return that a boot mounts what ``mount -a``, or ``mount`` of one place, does, if it needs devices."""
    devices = {line[1]: line[0] for line in _lines_of_fstab() if line[0].startswith(DEVICES) and line[2] != "swap"}
    given = list(devices) if [*words] in (["-a"], ["--all"]) else list(words)
    if not given or {*given} - {*devices}:
        return None
    return f"mount {', '.join(f'{devices[place]} on {place}' for place in given)}", FSTAB


def _apparmor(words: Sequence[str]) -> Left | None:
    """Return that a boot loads profiles, if their text is right."""
    files = [word for word in words if not word.startswith("-")]
    kinds = {word for word in words if word.startswith("-")} - {"-r", "-a", "--replace", "--add", "-W", "-T"}
    if not files or kinds or not all(file.startswith(_PROFILES) for file in files):
        return None
    done = subprocess.run(["apparmor_parser", "-QK", *files], capture_output=True, check=False)
    return None if done.returncode else (f"load {', '.join(files)} into the kernel", _APPARMOR)


def _complain(words: Sequence[str]) -> Left | None:
    """Return that a boot loads profiles whose mode a program of apparmor-utils wrote, before it failed to load them."""
    return _apparmor([word for word in words if not word.startswith("-")])


_COMMANDS: Mapping[str, Callable[[Sequence[str]], Left | None]] = {
    "sysctl": _sysctl,
    "modprobe": _modprobe,
    "swapon": _swapon,
    "mount": _mount,
    "apparmor_parser": _apparmor,
    "aa-complain": _complain,
    "aa-enforce": _complain,
}


_FUNCTIONS = re.compile(
    r"(?:blockdev|disk|ip|iptables|kmod|lvm|mount|nftables|partition|raid|selinux|sysctl|sysfs)\.\w+"
)
"""Execution functions that change the kernel, its network or its devices."""


def module(call: Call) -> Result:
    """`module.run`: an execution function fails in a container for the same reasons as a command."""
    result = call.run_caught()
    if result["result"] is not False:
        return result
    named = [*call.arguments, *(str(call.get(key)) for key in ("name", "func"))]
    return explained(result, next(filter(_FUNCTIONS.fullmatch, named), ""))
