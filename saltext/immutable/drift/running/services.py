"""The units that systemd has loaded: those that are not from the image, and those of the image that do not run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from string import Template

from saltext.immutable.drift.item import Item

_TYPES = ("service", "socket", "timer", "path", "slice")
_OF_GENERATORS = ("service", "socket", "slice")
"""Types that systemd's own generators make, of those that can start a program."""
_GENERATED = "/run/systemd/generator"
_MOUNTS = (
    *("BindPaths", "BindReadOnlyPaths", "ExtensionDirectories", "ExtensionImages", "MountImages"),
    *("RootDirectory", "RootImage", "TemporaryFileSystem"),
)
"""Properties that give a unit mounts of its own, of whatever it names."""
_PROPERTIES = (
    "Id",
    "FragmentPath",
    "SourcePath",
    "DropInPaths",
    "ActiveState",
    "UnitFileState",
    "Type",
    "ConditionResult",
    "LoadState",
    "Restart",
    "RemainAfterExit",
    "ControlGroup",
    "Environment",
    "EnvironmentFiles",
    "ExecStart",
    "ExecStartPost",
    "ExecStartPre",
    *_MOUNTS,
)
_EXECUTES = re.compile(r"\s*Exec\w*\s*=\s*[-@:+!|]*(\S*)(.*)")
_ARGUMENTS = re.compile(r"^ExecStart\w*=.*? argv\[\]=(.*?) ; ignore_errors=", re.MULTILINE)
_ENVIRONMENT_FILE = re.compile(r"^EnvironmentFiles=(.*) \(ignore_errors=\w+\)$", re.MULTILINE)
_OF_SYSTEMD = ("/lib/systemd/", "/usr/lib/systemd/")
_DAEMONS = ("notify", "notify-reload", "forking", "dbus")
"""Types of services that do not end by themselves."""
_TIMEOUT = 20.0
"""Seconds."""


@dataclass(frozen=True)
class Unit:
    """A unit as systemd has loaded it."""

    name: str
    file: str
    """Its unit file, with links resolved; '' for units that systemd makes by itself."""
    drop_ins: tuple[str, ...] = ()
    source: str = ""
    """The file that a generator made it from."""
    active: str = "inactive"
    enabled: str = ""
    type: str = ""
    conditions_met: bool = True
    """Whether its conditions for starting (``Condition...=``) were met."""
    programs: tuple[str, ...] = ()
    """The programs that it executes; only of units that a generator made."""
    masked: bool = False
    group: str = ""
    """Its control group: ``/system.slice/nginx.service``."""
    mounts: bool = False
    """It has one of _MOUNTS."""
    keeps_running: bool = False
    """It is restarted when it ends, or counts as active after its end."""
    commands: tuple[str, ...] = ()
    """The command lines that start it, with variables as they are written."""
    environment: str = ""
    """The variables that it gives, quoted as for a shell."""
    environment_files: tuple[str, ...] = ()


class SystemdUnavailable(Exception):
    """systemd does not answer; the text says why."""


def scan(root: str = "/") -> list[Unit]:
    """Return all units that are loaded; raise ``SystemdUnavailable`` if systemd does not answer."""
    output = _show("--all", f"--property={','.join(_PROPERTIES)}", *(f"*.{kind}" for kind in _TYPES))
    return [unit(stanza, root) for stanza in output.split("\n\n") if "Id=" in stanza]


def scan_environment() -> str:
    """Return the environment variables that systemd sets for every unit, quoted as for a shell."""
    return _show("--property=Environment", "--value")


def _show(*words: str) -> str:
    command = ["systemctl", "show", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise SystemdUnavailable(str(err)) from err
    if done.returncode:
        raise SystemdUnavailable(done.stderr.strip() or f"systemctl exited with {done.returncode}")
    return done.stdout


def unit(stanza: str, root: str = "/") -> Unit:
    """Return a unit from the output of ``systemctl show`` for it."""
    properties = dict(line.partition("=")[::2] for line in stanza.strip().splitlines())
    file = properties.get("FragmentPath", "")
    return Unit(
        name=properties["Id"],
        file=os.path.realpath(file) if file else "",
        drop_ins=tuple(os.path.realpath(path) for path in properties.get("DropInPaths", "").split()),
        source=properties.get("SourcePath", ""),
        active=properties.get("ActiveState", ""),
        enabled=properties.get("UnitFileState", ""),
        type=properties.get("Type", ""),
        conditions_met=properties.get("ConditionResult") != "no",
        programs=_programs(file) if file.startswith(_GENERATED) else (),
        group=properties.get("ControlGroup", ""),
        mounts=any(properties.get(name) for name in _MOUNTS),
        masked=properties.get("LoadState") == "masked",
        keeps_running=properties.get("Restart", "no") != "no" or properties.get("RemainAfterExit") == "yes",
        commands=tuple(_ARGUMENTS.findall(stanza)),
        environment=properties.get("Environment", ""),
        environment_files=tuple(_ENVIRONMENT_FILE.findall(stanza)),
    )


def _programs(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return programs(file.read())
    except OSError:
        return ("",)


def programs(text: str) -> tuple[str, ...]:
    """Return the programs in the text of a unit file; '' for a line of several commands, which no generator writes."""
    found = (_EXECUTES.match(line) for line in text.replace("\\\n", " ").split("\n"))
    return tuple("" if ";" in line[2] else line[1] for line in found if line)


def drift(
    units: Iterable[Unit],
    is_image_file: Callable[[str], bool],
    is_of_image: Callable[[str], bool] = lambda name: False,
) -> Iterator[Item]:
    """Yield the units that run but are not from the image, and those of the image that should run but do not.

    ``is_of_image``: whether the image has a unit of this name that is not masked.
    """
    for each in units:
        if each.masked and is_of_image(each.name):
            yield Item("service", each.name, "it is masked, but the image has this unit")
        elif each.file and not from_image(each, is_image_file) and each.active != "inactive":
            yield Item("service", each.name, f"its unit file is not from the image ({each.file})")
        for path in each.drop_ins:
            if not is_image_file(path):
                yield Item("service", each.name, f"a drop-in of its unit is not from the image ({path})")
        if _should_run(each) and each.active in ("inactive", "failed"):
            yield Item("service", each.name, f"the image enables it, but it is {each.active}")


def from_image(each: Unit, is_image_file: Callable[[str], bool]) -> bool:
    """Tell whether a unit is from the image, or was made by a generator from files of the image."""
    if each.file.startswith(_GENERATED):
        if not each.name.endswith(_OF_GENERATORS):
            return bool(each.source) and is_image_file(os.path.realpath(each.source))
        return (not each.source or is_image_file(os.path.realpath(each.source))) and all(
            is_image_file(os.path.realpath(program)) and (program == each.source or program.startswith(_OF_SYSTEMD))
            for program in each.programs
        )
    return is_image_file(each.file)


def explained(each: Unit, is_image_file: Callable[[str], bool], root: str = "/") -> frozenset[str]:
    """Return the variables (``NAME=value``) and the arguments that a unit of the image gives its programs."""
    variables = [one for one in _words(each.environment) if "=" in one]
    for path in each.environment_files:
        if is_image_file(os.path.realpath(path)):
            with suppress(OSError), open(root.rstrip("/") + path, encoding="utf-8", errors="surrogateescape") as file:
                lines = (line.strip() for line in file if not line.lstrip().startswith(("#", ";")))
                variables += ["".join(_words(line)) if "=" in line else "" for line in lines]
    values = dict(one.partition("=")[::2] for one in variables if one)
    words = [word for line in each.commands for word in Template(line).safe_substitute(values).split()]
    return frozenset([*variables, *words])


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def environment(variables: str, is_foreign: Callable[[str], bool]) -> Iterator[Item]:
    """Yield the variables of every unit that hold a path outside the image, from which units could load code.

    ``variables``: as of `scan_environment`; ``is_foreign``: whether a path exists and is not from the image.
    """
    for variable in shlex.split(variables):
        name, _, value = variable.partition("=")
        for path in re.split(r"[:\s]", value):
            if path.startswith("/") and is_foreign(path):
                yield Item("service", "systemd", f"it sets {name} for every unit, to {path}: not from the image")


def _should_run(each: Unit) -> bool:
    keeps_running = (
        not each.name.endswith(".service") or each.type in _DAEMONS or each.keeps_running or each.active == "failed"
    )
    return each.enabled == "enabled" and each.conditions_met and keeps_running
