"""The units that systemd knows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from saltext.immutable.drift.item import Item

_TYPES = ("service", "socket", "timer", "path")
_GENERATED = "/run/systemd/generator"
_ASKED = ("Id", "FragmentPath", "SourcePath", "DropInPaths", "ActiveState", "UnitFileState", "Type", "ConditionResult")
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


class Silent(Exception):
    """systemd does not answer; says why."""


def look(root: str = "/") -> list[Unit]:
    """Return all units that are loaded."""
    command = ["systemctl", "show", "--all", f"--property={','.join(_ASKED)}", *(f"*.{kind}" for kind in _TYPES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Silent(str(err)) from err
    if done.returncode:
        raise Silent(done.stderr.strip() or f"systemctl exited with {done.returncode}")
    return [unit(stanza, root) for stanza in done.stdout.split("\n\n") if "Id=" in stanza]


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
    )


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
        return not each.source or is_ours(os.path.realpath(each.source))
    return is_ours(each.file)


def _ought_to_run(each: Unit) -> bool:
    lasts = not each.name.endswith(".service") or each.type in _DAEMONS or each.active == "failed"
    return each.enabled == "enabled" and each.wanted and lasts
