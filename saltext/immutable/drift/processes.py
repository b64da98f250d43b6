"""What runs and is not from the image."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from saltext.immutable.drift.item import Item

_INTERPRETER = re.compile(r"(python|perl|ruby|node|php|lua|tclsh|gawk|mawk|busybox|bash|dash|zsh|ksh|fish|sh)[\d.]*")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD, proc(5)."""
_SHOWN = 120


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    exe: str
    """What it executes, as the kernel says it: a name for people."""
    same: bool
    """Whether the file of that name is what it executes: not where it was replaced, or seen through a mount."""
    command: str
    script: str = ""
    """The file that it was told to interpret."""
    maps: frozenset[str] = frozenset()
    """Further files whose code it has loaded."""
    unit: str = ""
    """The unit of systemd that it is of, or ''."""
    tty: int = 0
    user: str = ""


def look(proc: str = "/proc", root: str = "/") -> list[Process]:
    """Return every process but the kernel's own."""
    found = []
    for name in os.listdir(proc):
        if name.isdecimal() and (process := _seen(proc, root, int(name))) is not None:
            found.append(process)
    return found


def _seen(proc: str, root: str, pid: int) -> Process | None:
    try:
        return _process(proc, root, pid)
    except PermissionError:
        return Process(pid, "", False, "")
    except (OSError, ValueError):  # it ended meanwhile
        return None


def _process(proc: str, root: str, pid: int) -> Process | None:
    place = f"{proc}/{pid}"
    state, _, _, _, tty, _, flags, *_ = _read(f"{place}/stat").rpartition(")")[2].split()
    if state in "ZX":
        threads = [name for name in os.listdir(f"{place}/task") if name != str(pid)]
        if not threads:
            return None
        place = f"{place}/task/{threads[0]}"  # the first of them has ended, the others work on
    if int(flags) & _KERNEL_THREAD:
        return None
    words = _read(f"{place}/cmdline").split("\0")
    exe = os.readlink(f"{place}/exe")
    return Process(
        pid=pid,
        exe=exe,
        same=_same(f"{place}/exe", root, exe),
        command=" ".join(words).strip()[:_SHOWN],
        script=_script(f"{place}/cwd", exe, words),
        maps=_maps(place, exe),
        unit=_unit(_read(f"{place}/cgroup")),
        tty=int(tty),
        user=_user(os.stat(place).st_uid),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(place: str) -> str:
    with open(place, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _same(link: str, root: str, exe: str) -> bool:
    """The link leads to the file itself, also to one that has no name here any more."""
    try:
        return os.path.samestat(os.stat(link), os.stat(root.rstrip("/") + exe))
    except FileNotFoundError:
        return False


def _script(cwd: str, exe: str, words: list[str]) -> str:
    """Return the file that an interpreter was given first; '' where it was given none, or code in words."""
    if not _INTERPRETER.fullmatch(os.path.basename(exe)):
        return ""
    for word in words[1:]:
        if not word.startswith("-"):
            place = os.path.realpath(os.path.join(os.readlink(cwd), word))
            return place if os.path.isfile(place) else ""
        if word in ("-c", "-e", "-m"):
            return ""
    return ""


def _maps(place: str, exe: str) -> frozenset[str]:
    """See proc(5): address, rights, offset, device, inode, path."""
    lines = (line.split(None, 5) for line in _read(f"{place}/maps").splitlines())
    files = (fields[5] for fields in lines if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"))
    return frozenset(files) - {exe}


def _unit(cgroup: str) -> str:
    """Return the unit of one of systemd's own groups."""
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd" or (number == "0" and "name=systemd" not in cgroup):
            parts = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
            return parts[0] if parts else ""
    return ""


def drift(processes: Iterable[Process], is_ours: Callable[[str], bool]) -> Iterator[tuple[Process, Item]]:
    """Yield what executes anything that is not from the image; ``is_ours``: whether a path is, and is unchanged."""
    for process in processes:
        for said in _foreign(process, is_ours):
            yield process, Item("process", process.exe or "?", f"{said} (pid {process.pid}: {process.command})")


def _foreign(process: Process, is_ours: Callable[[str], bool]) -> Iterator[str]:
    if not process.exe:
        yield "what it executes cannot be seen"
    elif not is_ours(process.exe):
        yield "it runs and is not from the image"
    elif not process.same:
        yield "it runs under this name and is another file"
    elif process.script and not is_ours(process.script):
        yield f"it interprets {process.script}, which is not from the image"
    if loaded := sorted(path for path in process.maps if not is_ours(path)):
        yield f"it has loaded code from {', '.join(loaded[:5])}, not from the image"
