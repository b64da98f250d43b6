"""The units that systemd knows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from saltext.immutable.drift.item import Item

_TYPES = ("service", "socket", "timer", "path")
_GENERATED = "/run/systemd/generator"
_ASKED = ("Id", "FragmentPath", "SourcePath", "DropInPaths", "ActiveState", "UnitFileState", "Type", "ConditionResult")
_EXECUTES = re.compile(r"\s*Exec\w*\s*=\s*[-@:+!|]*(\S*)(.*)")
_OF_SYSTEMD = ("/lib/systemd/", "/usr/lib/systemd/")
_DAEMONS = ("notify", "notify-reload", "forking", "dbus")
"""Types of services that do not end by themselves."""
_WITHIN = 20.0


@dataclass(frozen=True)
class Unit:
    """A unit as systemd has loaded it."""

    name: str
    file: str
    """Where links lead to; '' for what systemd makes by itself."""
    drop_ins: tuple[str, ...] = ()
    source: str = ""
    """What a generator made it from."""
    active: str = "inactive"
    enabled: str = ""
    type: str = ""
    wanted: bool = True
    """Whether the conditions that it sets for its start held."""
    programs: tuple[str, ...] = ()
    """What it executes, where a generator made it."""


class Silent(Exception):
    """systemd does not answer; says why."""


def look(root: str = "/") -> list[Unit]:
    """Return all units that are loaded."""
    said = _show("--all", f"--property={','.join(_ASKED)}", *(f"*.{kind}" for kind in _TYPES))
    return [unit(stanza, root) for stanza in said.split("\n\n") if "Id=" in stanza]


def look_environment() -> str:
    """Return the variables that systemd gives to every unit, quoted as for a shell."""
    return _show("--property=Environment", "--value")


def _show(*words: str) -> str:
    command = ["systemctl", "show", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Silent(str(err)) from err
    if done.returncode:
        raise Silent(done.stderr.strip() or f"systemctl exited with {done.returncode}")
    return done.stdout


def unit(stanza: str, root: str = "/") -> Unit:
    """Return what ``systemctl show`` says of one unit."""
    said = dict(line.partition("=")[::2] for line in stanza.strip().splitlines())
    file = said.get("FragmentPath", "")
    return Unit(
        name=said["Id"],
        file=os.path.realpath(file) if file else "",
        drop_ins=tuple(os.path.realpath(path) for path in said.get("DropInPaths", "").split()),
        source=said.get("SourcePath", ""),
        active=said.get("ActiveState", ""),
        enabled=said.get("UnitFileState", ""),
        type=said.get("Type", ""),
        wanted=said.get("ConditionResult") != "no",
        programs=_programs(file) if file.startswith(_GENERATED) else (),
    )


def _programs(place: str) -> tuple[str, ...]:
    try:
        with open(place, encoding="utf-8", errors="surrogateescape") as file:
            return programs(file.read())
    except OSError:
        return ("",)


def programs(text: str) -> tuple[str, ...]:
    """Return what a unit's file executes; '' for a line of several commands, which no generator needs."""
    found = (_EXECUTES.match(line) for line in text.replace("\\\n", " ").split("\n"))
    return tuple("" if ";" in line[2] else line[1] for line in found if line)


def drift(units: Iterable[Unit], is_ours: Callable[[str], bool]) -> Iterator[Item]:
    """Yield what runs and is not from the image, and what of the image ought to run and does not."""
    for each in units:
        if each.file and not from_image(each, is_ours) and each.active != "inactive":
            yield Item("service", each.name, f"its unit is not from the image ({each.file})")
        for path in each.drop_ins:
            if not is_ours(path):
                yield Item("service", each.name, f"a part of its unit is not from the image ({path})")
        if _ought_to_run(each) and each.active in ("inactive", "failed"):
            yield Item("service", each.name, f"the image enables it, and it is {each.active}")


def from_image(each: Unit, is_ours: Callable[[str], bool]) -> bool:
    """Tell whether a unit is one of the image's, or made from files of it when the machine started."""
    if each.file.startswith(_GENERATED):
        return (not each.source or is_ours(os.path.realpath(each.source))) and all(
            is_ours(os.path.realpath(program)) and (program == each.source or program.startswith(_OF_SYSTEMD))
            for program in each.programs
        )
    return is_ours(each.file)


def environment(said: str, is_strange: Callable[[str], bool]) -> Iterator[Item]:
    """Yield the variables by which every unit would take code from where the image has none.

    ``is_strange``: whether a path is there and is not from the image.
    """
    for variable in shlex.split(said):
        name, _, value = variable.partition("=")
        for path in re.split(r"[:\s]", value):
            if path.startswith("/") and is_strange(path):
                yield Item("service", "systemd", f"it gives {name} to every unit, which leads to {path}")


def _ought_to_run(each: Unit) -> bool:
    lasts = not each.name.endswith(".service") or each.type in _DAEMONS or each.active == "failed"
    return each.enabled == "enabled" and each.wanted and lasts
