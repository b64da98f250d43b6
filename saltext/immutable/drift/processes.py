"""Processes that execute anything that is not from the image."""

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
_MAX_COMMAND = 120
"""Characters."""


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    exe: str
    """The path of its executable, as the kernel gives it; '' if that cannot be read."""
    same: bool
    """Whether it executes the file of that path; False if the file was replaced, or seen through a mount."""
    command: str
    script: str = ""
    """The file that it interprets."""
    maps: frozenset[str] = frozenset()
    """Further files whose code it has loaded."""
    unit: str = ""
    """Its systemd unit, or ''."""
    tty: int = 0
    user: str = ""


def scan(proc: str = "/proc", root: str = "/") -> list[Process]:
    """Return every process except the kernel's threads."""
    found = []
    for name in os.listdir(proc):
        if name.isdecimal() and (process := _process_or_none(proc, root, int(name))) is not None:
            found.append(process)
    return found


def _process_or_none(proc: str, root: str, pid: int) -> Process | None:
    try:
        return _process(proc, root, pid)
    except PermissionError:
        return Process(pid, "", False, "")
    except (OSError, ValueError):  # the process has ended meanwhile
        return None


def _process(proc: str, root: str, pid: int) -> Process | None:
    folder = f"{proc}/{pid}"
    state, _, _, _, tty, _, flags, *_ = _read(f"{folder}/stat").rpartition(")")[2].split()
    if state in "ZX":
        threads = [name for name in os.listdir(f"{folder}/task") if name != str(pid)]
        if not threads:
            return None
        folder = f"{folder}/task/{threads[0]}"  # its first thread has ended, others still run
    if int(flags) & _KERNEL_THREAD:
        return None
    words = _read(f"{folder}/cmdline").split("\0")
    exe = os.readlink(f"{folder}/exe")
    return Process(
        pid=pid,
        exe=exe,
        same=_same(f"{folder}/exe", root, exe),
        command=" ".join(words).strip()[:_MAX_COMMAND],
        script=_script(f"{folder}/cwd", exe, words),
        maps=_maps(folder, exe),
        unit=_unit(_read(f"{folder}/cgroup")),
        tty=int(tty),
        user=_user(os.stat(folder).st_uid),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _same(link: str, root: str, exe: str) -> bool:
    """Tell whether path ``exe`` is the executed file. (``link`` leads to that file even after its name is gone.)"""
    try:
        return os.path.samestat(os.stat(link), os.stat(root.rstrip("/") + exe))
    except FileNotFoundError:
        return False


def _script(cwd: str, exe: str, words: list[str]) -> str:
    """Return the script of an interpreter, its first argument; '' if it has none, or code as an argument (``-c``)."""
    if not _INTERPRETER.fullmatch(os.path.basename(exe)):
        return ""
    for word in words[1:]:
        if not word.startswith("-"):
            path = os.path.realpath(os.path.join(os.readlink(cwd), word))
            return path if os.path.isfile(path) else ""
        if word in ("-c", "-e", "-m"):
            return ""
    return ""


def _maps(folder: str, exe: str) -> frozenset[str]:
    """Return the files mapped as executable. See proc(5): address, rights, offset, device, inode, path."""
    lines = (line.split(None, 5) for line in _read(f"{folder}/maps").splitlines())
    files = (fields[5] for fields in lines if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"))
    return frozenset(files) - {exe}


def _unit(cgroup: str) -> str:
    """Return the systemd unit in the text of /proc/<pid>/cgroup, or ''."""
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd" or (number == "0" and "name=systemd" not in cgroup):
            parts = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
            return parts[0] if parts else ""
    return ""


def drift(processes: Iterable[Process], is_image_file: Callable[[str], bool]) -> Iterator[tuple[Process, Item]]:
    """Yield the processes that execute anything that is not from the image, each with its items.

    ``is_image_file``: whether a path is a file of the image that has not changed.
    """
    for process in processes:
        for detail in _foreign(process, is_image_file):
            yield process, Item("process", process.exe or "?", f"{detail} (pid {process.pid}: {process.command})")


def _foreign(process: Process, is_image_file: Callable[[str], bool]) -> Iterator[str]:
    if not process.exe:
        yield "its executable cannot be seen"
    elif not is_image_file(process.exe):
        yield "it runs, but is not from the image"
    elif not process.same:
        yield "the process has this path as its name, but executes another file"
    elif process.script and not is_image_file(process.script):
        yield f"it interprets {process.script}, which is not from the image"
    if loaded := sorted(path for path in process.maps if not is_image_file(path)):
        yield f"it has loaded code from {', '.join(loaded[:5])}, which is not from the image"
