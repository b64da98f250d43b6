"""Environment variables that make a program load code or config: which of them lead out of the image. Pure."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from saltext.immutable.drift.running import interpreters

Origin = Literal["image", "nothing", "noexec", "other"]
"""Where a path leads that a program is given: to a file or folder of the image, to nothing where a machine cannot
write, to where no program can be executed, or elsewhere."""

_LISTS = (
    "AWKLIBPATH AWKPATH CLASSPATH GCONV_PATH GEM_HOME GEM_PATH GIO_EXTRA_MODULES GIO_MODULE_DIR GI_TYPELIB_PATH "
    "GTK_PATH LD_AUDIT LD_LIBRARY_PATH LD_PRELOAD LOCPATH NLSPATH OPENSSL_ENGINES OPENSSL_MODULES PATH PERL5LIB "
    "PERLLIB PYTHONHOME PYTHONPATH PYTHONUSERBASE QT_PLUGIN_PATH RUBYLIB TCLLIBPATH"
)
"""Folders and files in which code is searched; an empty part is the working directory."""
_LISTS_WITH_DEFAULT = "LUA_CPATH LUA_PATH NODE_PATH PHP_INI_SCAN_DIR"
"""The same, but an empty part is a default of the program's own, or left out."""
_FILES = (
    "BASH_ENV BUNDLE_GEMFILE ENV OPENSSL_CONF PHPRC PYTHONSTARTUP SALT_CONFIG_DIR SALT_MASTER_CONFIG "
    "SALT_MINION_CONFIG SALT_PROXY_CONFIG ZDOTDIR"
)
_CODE = "LUA_INIT PERL5DB"
_MODULES = "PYTHONBREAKPOINT PYTHONWARNINGS"
_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"), "java"),
    **{"NODE_OPTIONS": "node", "PERL5OPT": "perl", "RUBYOPT": "ruby"},
}
"""Variable to the interpreter that takes its options from it."""
VARIABLES = frozenset(f"{_LISTS} {_LISTS_WITH_DEFAULT} {_FILES} {_CODE} {_MODULES}".split()) | _OPTIONS.keys()
"""Environment variables that make a program load code or config from where they say."""
_VERSION = re.compile(r"(LUA_(?:C?PATH|INIT))_\d_\d")
_SEPARATORS = {
    **dict.fromkeys(("LD_LIBRARY_PATH", "LUA_CPATH", "LUA_PATH"), r"[:;]"),
    **dict.fromkeys(("LD_PRELOAD", "TCLLIBPATH"), r"[:\s]+"),
}
_PATTERN = re.compile(r"[^/]*[?%*].*", re.DOTALL)
"""What stands for a name that is not known beforehand: ``/usr/share/lua/?.lua``, ``/usr/share/java/*``."""
_WARNING_OF_MODULE = re.compile(r"(?:^|,)[^:,]*:[^:,]*:[^:,]*\.")
"""A category of warnings that Python imports: ``ignore::urllib3.exceptions.HTTPWarning``."""
_NO_MODULE = ("", "0", "bundler/setup")
"""``PYTHONBREAKPOINT=0``, and what Ruby's Bundler sets for the programs that it starts."""
_SHELLS = ("ash", "bash", "busybox", "dash", "ksh", "lksh", "mksh", "posh", "rbash", "sh", "yash", "zsh")


def is_variable(name: str) -> bool:
    """Tell whether a variable makes a program load code or config."""
    return _plain(name) in VARIABLES


def _plain(name: str) -> str:
    found = _VERSION.fullmatch(name)
    return found[1] if found else name


def leads_out(variable: str, exe: str, cwd: str, origin: Callable[[str], Origin]) -> bool:
    """Tell whether a variable (``NAME=value``) makes a program load what is not from the image.

    ``exe``: the path of its executable; ``cwd``: its working directory, '' if that is not known; ``origin``: where an
    absolute path leads.
    """
    name, _, value = variable.partition("=")
    name = _plain(name)
    if name == "ENV" and ("/" not in value or os.path.basename(exe) not in _SHELLS):
        return False  # only interactive shells read it; for other programs it is a name: production
    if name in _OPTIONS:
        return any(_loads(_OPTIONS[name], each, cwd, origin) for each in _references(_OPTIONS[name], value))
    if name in _CODE.split():
        return not value.startswith("@") or _is_other(value[1:], cwd, origin)
    if name == "PYTHONWARNINGS":
        return bool(_WARNING_OF_MODULE.search(value))
    if name in _MODULES.split():
        return value not in _NO_MODULE
    if name in _FILES.split():
        return _is_other(value, cwd, origin)
    parts = re.split(_SEPARATORS.get(name, ":"), value)
    if name in (*_LISTS_WITH_DEFAULT.split(), "LD_PRELOAD", "TCLLIBPATH"):
        parts = [part for part in parts if part]
    harmless = _harmless(name, exe)
    return any(origin_of(part, cwd, origin) not in harmless for part in parts)


def _harmless(name: str, exe: str) -> tuple[Origin, ...]:
    """Return where the parts of a list may lead.

    execve fails on a noexec mount for scripts, too, whatever their ``#!`` line says: nothing is run from there by PATH.
    (A link there to a program elsewhere runs that program, which is judged as a process of its own.) But shells search
    PATH also for what they only read: ``. name``, ``sh name``.
    """
    if name in ("LD_AUDIT", "LD_PRELOAD"):
        return ("image",)
    if name == "PATH" and os.path.basename(exe) not in _SHELLS:
        return ("image", "nothing", "noexec")
    return ("image", "nothing")


def _references(kind: str, value: str) -> Iterator[interpreters.Reference]:
    try:
        words = shlex.split(value)
    except ValueError:
        words = value.split()
    if kind == "perl" and words and not words[0].startswith("-"):
        words[0] = f"-{words[0]}"
    for each in interpreters.references(kind, words):
        if each.role in ("file", "folder", "paths", "module"):
            yield each


def _loads(kind: str, found: interpreters.Reference, cwd: str, origin: Callable[[str], Origin]) -> bool:
    if found.role == "module" and not interpreters.is_path(found.value):
        return found.value not in _NO_MODULE
    if found.role == "module":
        return all(_is_other(each, cwd, origin) for each in interpreters.module_files(kind, found.value))
    if found.role == "file":
        return _is_other(found.value, cwd, origin)
    parts = found.value.split(":") if found.role == "paths" else [found.value]
    return any(origin_of(part, cwd, origin) not in ("image", "nothing") for part in parts)


def _is_other(path: str, cwd: str, origin: Callable[[str], Origin]) -> bool:
    return origin_of(path, cwd, origin) != "image"


def origin_of(path: str, cwd: str, origin: Callable[[str], Origin]) -> Origin:
    """Return where a path leads, by the working directory if it is relative or empty."""
    fixed = _PATTERN.sub("", path)
    if path == "/dev/null" or (fixed in ("", ".", "./") and cwd == "/"):
        return "image"  # no machine writes into / itself
    full = os.path.join(cwd, fixed)
    return origin(full) if full.startswith("/") and ".." not in path.removeprefix(fixed) else "other"
