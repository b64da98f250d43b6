"""Processes that execute anything that is not from the image."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from saltext.immutable.drift.item import Item

_INTERPRETER = re.compile(r"(python|perl|ruby|node|php|lua|tclsh|gawk|mawk|busybox|bash|dash|zsh|ksh|fish|sh)[\d.]*")
_TAKES_A_WORD: Mapping[str, str] = {
    "python": "-W -X --check-hash-based-pycs",
    "perl": "-I",
    "ruby": "-I -C -r",
    "node": "-r --require --import --loader",
    "php": "-c -d -z",
    "lua": "-l",
    **dict.fromkeys(("bash", "zsh", "ksh"), "-o +o -O +O --rcfile --init-file"),
    **dict.fromkeys(("dash", "sh"), "-o +o"),
}
"""Interpreter to its options that take the next word as their value."""
_OTHER_FIRST_WORD = ("gawk", "mawk", "busybox")
"""Their first word may be a program text, or the name of a command."""
_CODE_IN_A_WORD: Mapping[str, str] = {
    "python": r"-[bBdEhiIOPqsSuvVx]*c.*",
    **dict.fromkeys(("perl", "ruby"), r"-[aclnpsSwWtTuUX0-9]*[eE].*"),
    "node": r"-e|-p|-pe|--eval(=.*)?|--print(=.*)?",
    "php": r"-[rBRE]",
    "lua": r"-e.*",
    "fish": r"-c|--command(=.*)?",
    **dict.fromkeys(("bash", "dash", "ksh", "sh", "zsh"), r"-[A-Za-z]*c[A-Za-z]*"),
}
"""Interpreter to its options after which it runs an argument as code, and no file: ``-c``, ``-lc``, ``-ne``."""
_MODULE = re.compile(r"-[bBdEiIOPqsSuvx]*m")
"""The option of Python after which the name of a module stands."""
_PATHS = "LD_AUDIT LD_LIBRARY_PATH LD_PRELOAD PERL5LIB PERLLIB PYTHONHOME PYTHONPATH RUBYLIB NODE_PATH GCONV_PATH"
_FILES = "BASH_ENV ENV PYTHONSTARTUP SALT_CONFIG_DIR SALT_MASTER_CONFIG SALT_MINION_CONFIG OPENSSL_CONF"
_OPTIONS = "JAVA_TOOL_OPTIONS NODE_OPTIONS PERL5OPT RUBYOPT"
CODE_VARIABLES = frozenset(f"{_PATHS} {_FILES} {_OPTIONS}".split())
"""Environment variables that make a program load code or config from where they say."""
_LOADS_BY_NAME = re.compile(r"(^|\s)(-[MmIr]\w|--require|--import|--loader|-javaagent|-agent)")
_CONFIG_OF_SALT = re.compile(r"(?:-c|--config-dir)(?:=|$)(.*)")
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
    variables: tuple[str, ...] = ()
    """Those of its environment in CODE_VARIABLES, as ``NAME=value``."""
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
    exe = os.readlink(f"{folder}/exe")
    return Process(
        pid=pid,
        exe=exe,
        same=_same(f"{folder}/exe", root, exe),
        command=" ".join(words).strip()[:_MAX_COMMAND],
        script=_script(folder, exe, words),
        maps=_maps(folder, exe),
        unit=_unit(cgroup),
        tty=int(tty),
        user=_user(os.stat(folder).st_uid),
        variables=_variables(f"{folder}/environ"),
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


def _script(folder: str, exe: str, words: list[str]) -> str:
    """Return the file that an interpreter runs; '' if it is none, or has its code as an argument (``-c``).

    That of a module (``-m``) only if it is in the working directory, which Python searches first. ``(deleted)`` follows
    the name of a file that is gone.
    """
    kind = _INTERPRETER.fullmatch(os.path.basename(exe.removesuffix(" (deleted)")))
    if not kind:
        return ""
    cwd, options = os.readlink(f"{folder}/cwd"), iter(words[1:])
    for word in options:
        if kind[1] == "python" and _MODULE.fullmatch(word):
            return _module(cwd, next(options, ""))
        if word in _TAKES_A_WORD.get(kind[1], "").split():
            next(options, None)
        elif re.fullmatch(_CODE_IN_A_WORD.get(kind[1], ""), word):
            return ""
        elif word in ("-", "-s", "/dev/stdin", "/dev/fd/0"):
            return _standard_input(folder)
        elif word and not word.startswith(("-", "+")):
            return _file(os.path.join(cwd, word), kind[1] in _OTHER_FIRST_WORD)
    return "" if kind[1] in _OTHER_FIRST_WORD else _standard_input(folder)


def _file(path: str, may_be_text: bool) -> str:
    real = os.path.realpath(path)
    if os.path.isdir(real):
        return f"{real}/__main__.py"
    return real if os.path.isfile(real) else "" if may_be_text else f"{real} (deleted)"


def _module(cwd: str, name: str) -> str:
    """Return the file of a module in the working directory, or ''."""
    path = os.path.join(cwd, *name.split("."))
    candidates = (f"{path}.py", f"{path}/__main__.py", f"{path}/__init__.py", f"{path}.so")
    return next((found for found in candidates if os.path.isfile(found)), "")


def _standard_input(folder: str) -> str:
    """Return the file or pipe that a program reads its code from; '' for a terminal, and where nothing can be read."""
    try:
        source = os.readlink(f"{folder}/fd/0")
    except OSError:
        return ""
    return "" if source.startswith(("/dev/", "socket:")) else source


def _variables(path: str) -> tuple[str, ...]:
    try:
        found = _read(path).split("\0")
    except OSError:
        return ()
    return tuple(one for one in found if one.partition("=")[0] in CODE_VARIABLES and one.partition("=")[2])


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
    is_image_folder: Callable[[str], bool] = lambda path: False,
) -> Iterator[tuple[Process, Item]]:
    """Yield the processes that execute anything that is not from the image, each with its items.

    ``is_image_file``: whether a path is a file of the image that has not changed; ``is_image_folder``: whether it is a
    folder of the image that machines cannot write to.
    """
    for process in processes:
        details = [*_foreign(process, is_image_file), *_misled(process, is_image_file, is_image_folder)]
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
    process: Process, is_image_file: Callable[[str], bool], is_image_folder: Callable[[str], bool]
) -> Iterator[str]:
    """Yield how a program of the image was made to load other code or config."""
    for variable in process.variables:
        name, _, value = variable.partition("=")
        if name in _OPTIONS.split():
            foreign = _LOADS_BY_NAME.search(value) is not None
        else:
            parts = [part for part in re.split(r"[:\s]", value) if part]
            foreign = any(not (is_image_file(part) or is_image_folder(part)) for part in parts)
        if foreign:
            yield f"its environment has {variable[:200]}, from which it loads what is not from the image"
    if process.config and os.path.normpath(process.config) != "/etc/salt":
        yield f"it is a program of Salt with its config in {process.config}"
    if process.own_unit and process.own_unit != "init.scope":
        folders = ("/usr/lib/systemd/user", "/lib/systemd/user", "/etc/systemd/user")
        if process.own_unit.endswith(".service") and not any(
            is_image_file(f"{folder}/{process.own_unit}") for folder in folders
        ):
            yield f"it runs in {process.own_unit}, a unit of a user's own"


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
