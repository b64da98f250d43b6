"""Processes that execute anything that is not from the image."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.running import interpreters
from saltext.immutable.drift.running.environment import Origin, is_variable, leads_out, origin_of
from saltext.immutable.drift.running.interpreters import Reference

_CONFIG_OF_SALT = re.compile(r"(?:-c|--config-dir)(?:=|$)(.*)")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD, proc(5)."""
_MAX_COMMAND = 120
"""Characters."""
_DESCRIPTOR = re.compile(r"/dev/stdin|/dev/fd/(\d+)|/proc/self/fd/(\d+)")
_NO_FILE = ("NONE", "NORC", "DEFAULTS")
"""What vim takes in place of a file."""
_CODE = (
    ".awk .bash .beam .class .cjs .dll .el .elc .exp .ez .jar .jl .js .ksh .lua .mjs .phar .php .pl .pm .ps1 .py .pyc "
    ".pyz .rb .scm .sh .so .tcl .ts .vim .war .zsh"
)
"""Ends of the names of files with code."""
_BEGINNINGS = (b"#!", b"\x7fELF", b"\xca\xfe\xba\xbe")
"""Of a script, a library and a class of Java."""


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
    code: tuple[str, ...] = ()
    """Further files that its arguments make it load."""
    folders: tuple[str, ...] = ()
    """Where its arguments make it search for code."""
    given: tuple[tuple[str, str], ...] = ()
    """Arguments of what an interpreter runs that name files with code: the argument, and the path of the file."""
    maps: frozenset[str] = frozenset()
    """Further files whose code it has loaded."""
    unit: str = ""
    """Its systemd unit, or ''."""
    tty: int = 0
    user: str = ""
    variables: tuple[str, ...] = ()
    """Those of its environment that make a program load code or config, as ``NAME=value``."""
    cwd: str = ""
    """Its working directory."""
    config: str = ""
    """The config folder that its command line gives a program of Salt."""
    own_unit: str = ""
    """The unit of its user's own manager that it runs in."""
    parent: int = 0
    """Id of the process that started it."""


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
    state, parent, _, _, tty, _, flags, *_ = _read(f"{folder}/stat").rpartition(")")[2].split()
    if state in "ZX":
        threads = [name for name in os.listdir(f"{folder}/task") if name != str(pid)]
        if not threads:
            return None
        folder = f"{folder}/task/{threads[0]}"  # its first thread has ended, others still run
    if int(flags) & _KERNEL_THREAD:
        return None
    words, cgroup = _read(f"{folder}/cmdline").split("\0"), _read(f"{folder}/cgroup")
    words = words[:-1] if len(words) > 1 and not words[-1] else words
    exe, cwd = os.readlink(f"{folder}/exe"), os.readlink(f"{folder}/cwd")
    kind, arguments = interpreters.kind_of(exe, words)
    told = _Told(folder, cwd, kind, interpreters.references(kind, arguments))
    return Process(
        pid=pid,
        exe=exe,
        same=_same(f"{folder}/exe", root, exe),
        command=" ".join(words).strip()[:_MAX_COMMAND],
        script=told.script,
        code=told.code,
        folders=told.folders,
        given=told.given,
        maps=_maps(folder, exe),
        unit=_unit(cgroup),
        tty=int(tty),
        user=_user(os.stat(folder).st_uid),
        variables=_variables(f"{folder}/environ"),
        cwd=cwd,
        config=_config(words),
        own_unit=_own_unit(cgroup),
        parent=int(parent),
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def _same(link: str, root: str, exe: str) -> bool:
    """Tell whether path ``exe`` is the executed file. (``link`` leads to that file even after its name is gone.)"""
    try:
        return os.path.samestat(os.stat(link), os.stat(root.rstrip("/") + exe))
    except FileNotFoundError:
        return False


class _Told:
    """What an interpreter was told to run and to load, as files of this machine.

    The path of a file that is gone ends in ``(deleted)``. A module (``-m``) counts if it is in the working directory,
    which some interpreters search first.
    """

    def __init__(self, folder: str, cwd: str, kind: str, references: list[Reference]) -> None:
        self._folder, self._cwd, self._kind = folder, cwd, kind
        found = [(each.role, file) for each in references if (file := self._file(each))]
        programs = [file for role, file in found if role in ("script", "input")] or [file for _, file in found]
        self.script = programs[0] if programs else ""
        self.code = tuple(file for _, file in found if file != self.script)
        lists = [each.value.split(":") if each.role == "paths" else [each.value] for each in references
                 if each.role in ("folder", "paths")]  # fmt: skip
        self.folders = tuple(part for parts in lists for part in parts)
        arguments = [each.value for each in references if each.role == "argument"]
        self.given = tuple((word, file) for word in arguments for file in self._in_argument(word))

    def _file(self, reference: Reference) -> str:
        role, value = reference
        if role in ("script", "file"):
            return "" if role == "file" and value in _NO_FILE else self._existing(value)
        if role == "input":
            return _opened(self._folder, "0")
        if role == "module":
            files = [os.path.join(self._cwd, name) for name in interpreters.module_files(self._kind, value)]
            gone = f"{files[0]} (deleted)" if interpreters.is_path(value) else ""
            return next((os.path.realpath(file) for file in files if os.path.isfile(file)), gone)
        paths = self._paths(value) if role == "any" else []
        return next((path for path in paths if os.path.isfile(path)), "")

    def _existing(self, value: str) -> str:
        """Return the file of code that is named so; a pipe counts, a device does not."""
        path = os.path.join(self._cwd, value)
        if descriptor := _DESCRIPTOR.fullmatch(path):
            number = descriptor[1] or descriptor[2] or "0"
            closed = not os.path.lexists(f"{self._folder}/fd/{number}")
            return f"{path} (deleted)" if closed else _opened(self._folder, number)
        files = [os.path.join(self._cwd, name) for name in interpreters.module_files(self._kind, path)]
        real = os.path.realpath(next(filter(os.path.isfile, files), path))
        if os.path.isdir(real):
            return f"{real}/__main__.py"
        with suppress(OSError):
            return "" if stat.S_ISCHR(os.stat(real).st_mode) else real
        return f"{real} (deleted)"

    def _paths(self, word: str) -> list[str]:
        return [os.path.realpath(os.path.join(self._cwd, path)) for path in interpreters.paths_in(word) if path]

    def _in_argument(self, word: str) -> list[str]:
        """Return the files of an argument that look like code, also those of a ``/tmp`` of the process's own."""
        roots = ("", f"{self._folder}/root")
        return [path for path in self._paths(word) if any(_is_code(f"{root}{path}") for root in roots)]


def _is_code(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with suppress(OSError), open(path, "rb") as file:
        return path.endswith(tuple(_CODE.split())) or file.read(4).startswith(_BEGINNINGS)
    return True


def _opened(folder: str, number: str) -> str:
    """Return the file or pipe that a program reads its code from; '' for a terminal, and where nothing can be read."""
    try:
        source = os.readlink(f"{folder}/fd/{number}")
    except OSError:
        return ""
    return "" if source.startswith(("/dev/", "socket:")) else source


def _variables(path: str) -> tuple[str, ...]:
    try:
        found = _read(path).split("\0")
    except OSError:
        return ()
    return tuple(one for one in found if is_variable(one.partition("=")[0]) and one.partition("=")[2])


def _config(words: list[str]) -> str:
    """Return the config folder of ``salt-minion -c DIR`` and of other programs of Salt, or ''."""
    if not any(os.path.basename(word).startswith("salt-") for word in words[:3]):
        return ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if match := _CONFIG_OF_SALT.fullmatch(word):
            return match[1] or after
    return ""


def _own_unit(cgroup: str) -> str:
    """Return the unit below ``user@<uid>.service`` in the text of /proc/<pid>/cgroup, or ''."""
    found = re.search(r"/user@\d+\.service/(?:.*/)?([^/\n]+\.(?:service|scope))$", cgroup, re.MULTILINE)
    return found[1] if found else ""


def _maps(folder: str, exe: str) -> frozenset[str]:
    """Return the files mapped as executable. See proc(5): address, rights, offset, device, inode, path."""
    lines = (line.split(None, 5) for line in _read(f"{folder}/maps").split("\n"))
    files = (fields[5] for fields in lines if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/"))
    return frozenset(files) - {exe}


def _unit(cgroup: str) -> str:
    """Return the systemd unit in the text of /proc/<pid>/cgroup, or ''."""
    for line in filter(None, cgroup.split("\n")):  # a group may have any other white space in its name
        number, controllers, path = line.split(":", 2)
        if controllers == "name=systemd" or (number == "0" and "name=systemd" not in cgroup):
            parts = [part for part in path.split("/") if part.endswith((".service", ".scope"))]
            return parts[0] if parts else ""
    return ""


def drift(
    processes: Iterable[Process],
    is_image_file: Callable[[str], bool],
    origin: Callable[[str], Origin] = lambda path: "other",
    explained: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Iterator[tuple[Process, Item]]:
    """Yield the processes that execute anything that is not from the image, each with its items.

    ``is_image_file``: whether a path is a file of the image that has not changed; ``origin``: where a path leads that
    a program is given; ``explained``: unit of the image to the variables (``NAME=value``) and arguments that it gives.
    """
    for process in processes:
        of_unit = explained.get(process.unit, ())
        details = [
            *_foreign(process, is_image_file, origin, of_unit),
            *_misled(process, is_image_file, origin, of_unit),
        ]
        for detail in details:
            yield process, Item("process", process.exe or "?", f"{detail} (pid {process.pid}: {process.command})")


def without_unit(
    processes: Iterable[Process], is_of_unit: Callable[[Process], bool], own: int
) -> Iterator[tuple[Process, Item]]:
    """Yield the processes of no unit of the image, each with its item, except the check's own and those that called it.

    ``own``: id of the check's process.
    """
    by_pid = {process.pid: process for process in processes}
    callers = set()
    while own in by_pid and own not in callers:
        callers.add(own)
        own = by_pid[own].parent
    for process in by_pid.values():
        if process.pid not in callers and not is_of_unit(process):
            where = f"{process.unit}, which is no unit of the image" if process.unit else "no unit"
            detail = f"it runs in {where} (pid {process.pid}: {process.command})"
            yield process, Item("process", process.exe or "?", detail)


def _misled(
    process: Process, is_image_file: Callable[[str], bool], origin: Callable[[str], Origin], of_unit: Collection[str]
) -> Iterator[str]:
    """Yield how a program of the image was made to load other code or config."""
    for variable in process.variables:
        if variable not in of_unit and leads_out(variable, process.exe, process.cwd, origin):
            yield f"its environment has {variable[:200]}, from which it loads what is not from the image"
    if process.config and os.path.normpath(process.config) != "/etc/salt":
        yield f"it is a program of Salt with its config in {process.config}"
    if process.own_unit and process.own_unit != "init.scope":
        folders = ("/usr/lib/systemd/user", "/lib/systemd/user", "/etc/systemd/user")
        if process.own_unit.endswith(".service") and not any(
            is_image_file(f"{folder}/{process.own_unit}") for folder in folders
        ):
            yield f"it runs in {process.own_unit}, a unit of a user's own"


def _foreign(
    process: Process, is_image_file: Callable[[str], bool], origin: Callable[[str], Origin], of_unit: Collection[str]
) -> Iterator[str]:
    if not process.exe:
        yield "its executable cannot be seen"
    elif not is_image_file(process.exe):
        yield "it runs, but is not from the image"
    elif not process.same:
        yield "the process has this path as its name, but executes another file"
    elif process.script and not is_image_file(process.script):
        yield f"it interprets {process.script}, which is not from the image"
    else:
        given = [path for word, path in process.given if word not in of_unit]
        origins = [(path or ".", origin_of(path, process.cwd, origin)) for path in process.folders]
        searched = [path for path, found in origins if found not in ("image", "nothing")]
        files = [path for path in (*process.code, *given) if not is_image_file(path)]
        if told := [*files, *searched]:
            yield f"its arguments make it load {', '.join(told[:5])}, which is not from the image"
    if loaded := sorted(path for path in process.maps if not is_image_file(path)):
        yield f"it has loaded code from {', '.join(loaded[:5])}, which is not from the image"
