"""What systemd says about the units of this machine: how they are, why one cannot start here, how a start ended.

Standard library only. A bake asks in the machine that it builds, and the health of a machine in that one.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

_SUFFIXES = ("service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope")
_UNMET = re.compile(r"((?:Condition|Assert)\w+=.*) was not met")
_FAILED = re.compile(r"((?:Condition|Assert)\w+=.*) failed\.")
_SKIPPED = re.compile(r"was skipped because of an unmet condition check \(((?:Condition|Assert)\w+=.*)\)\.?$")
_KINDS = ("Condition", "Assert")
_OF_PLACE = re.compile(
    r"(?:Condition|Assert)(?:(?:Virtualization|Capability|Security|Kernel\w+|Firmware|Architecture|Host|ACPower|CPU\w*"
    r"|Memory|ControlGroup\w+|Needs\w+)=|Path\w*=[|!]*(?:/dev|/sys|/proc|/run)/|(?:Directory|File)\w+=[|!]*"
    r"(?:/dev|/sys|/proc|/run)/)"
)
"""Conditions on the place where a unit runs: hardware, kernel, rights. What is not met here may be met elsewhere."""
ACTIVE = "active"
WAITING = "waiting"
"""How the state of a unit begins that something else starts when it is needed: its socket, its timer, D-Bus."""
NOT_APPLICABLE = "not applicable"
"""How the state of a unit begins whose conditions ask for another place than this one: other hardware, other rights."""
_STARTERS = ("BoundBy", "RequiredBy", "TriggeredBy", "UpheldBy", "WantedBy")
"""Properties of a unit that name the units which start it."""
_STATE = ("LoadState", "ActiveState", "Result", "Type", "UnitFileState", *_STARTERS)
_NOT_ENABLED = ("", "disabled", "enabled-runtime", "indirect", "static")
_GONE = ("not-found", "masked")
_LINES = 15
"""Lines of the journal in the message about a unit that did not start."""


def full_name(unit: str) -> str:
    """Return the name of a unit with its suffix."""
    return unit if unit.rpartition(".")[2] in _SUFFIXES and "." in unit else f"{unit}.service"


def missing_device(unit: str) -> str | None:
    """Return a phrase about a device that a unit needs and that is not here, or None.

    A start would wait for it for 90 s.
    """
    shown = _shown(unit, "BindsTo", "Requires", "Requisite")
    devices = [each for value in shown.values() for each in shlex.split(value) if each.endswith(".device")]
    missing = next((each for each in devices if _said("is-active", each).strip() != "active"), None)
    return f"it needs {missing}" if missing else None


def is_template(unit: str) -> bool:
    """Return whether a full name is that of a template, of which systemd makes units."""
    return unit.partition(".")[0].endswith("@")


def is_of_place(condition: str) -> bool:
    """Return whether a condition asks for the place where the unit runs, and not for a file that the tree forgot."""
    return bool(_OF_PLACE.match(condition))


def unmet_condition(unit: str) -> str | None:
    """Return the condition or assertion for which a start is skipped, as its unit has it, or None.

    systemd forgets the result of a start as soon as nothing needs the unit; then the last line of its journal has it,
    or the conditions are tested again: with the rights of the caller, which are more than a unit's in a bake.
    """
    shown = _shown(unit, "ConditionResult", "ConditionTimestampMonotonic", "AssertResult", "AssertTimestampMonotonic")
    known = [(shown.get(f"{kind}Result"), shown.get(f"{kind}TimestampMonotonic", "0")) for kind in _KINDS]
    skipped = any(result == "no" and when != "0" for result, when in known)
    if skipped and (found := _UNMET.search(_said("status", "--no-pager", "--lines=0", unit))):
        return found[1]
    if all(when == "0" for _, when in known) and (condition := _skipped(unit, "--boot")):
        return condition
    done = run("condition", f"--unit={unit}", program="systemd-analyze")  # from version 250 on
    failed = _FAILED.findall(done.stdout + done.stderr) if done is not None and done.returncode else []
    return min(failed, key=lambda each: each.startswith("Assert"), default=None) or _skipped(unit)


def _skipped(unit: str, *options: str) -> str | None:
    """Return the condition for which systemd skipped the last start, by its journal. ``options``: of journalctl.

    A program in a machine may have rights that its init has not, and find ``ConditionCapability`` met.
    """
    last = _said(*options, "--no-pager", "--lines=1", "--output=cat", f"--unit={unit}", program="journalctl")
    found = _SKIPPED.search(last.strip())
    return found[1] if found else None


def states(units: Sequence[str]) -> dict[str, str]:
    """Return how each unit is: ``active``, ``not applicable: ...``, or what is wrong with it."""
    found = show(units, *_STATE) if units else []
    if len(found) != len(units):  # of a name that it does not like systemd says nothing
        found = [next(iter(show([unit], *_STATE)), {}) for unit in units]
    return {unit: _state(unit, properties) for unit, properties in zip(units, found, strict=True)}


def runs(state: str) -> bool:
    """Return whether a unit of this state runs, will run when it is needed, or cannot run on this machine."""
    return state == ACTIVE or state.startswith((WAITING, NOT_APPLICABLE))


def is_gone(properties: Mapping[str, str]) -> bool:
    """Return whether a unit was removed or masked."""
    return properties.get("LoadState") in _GONE


def is_absent(unit: str) -> bool:
    """Return whether systemd has no such unit, or masks it."""
    return any(map(is_gone, show([unit], "LoadState")))


def is_never_started(properties: Mapping[str, str]) -> bool:
    """Return whether no boot, and no other unit, starts a unit."""
    started = any(properties.get(name) for name in _STARTERS) or properties.get("Type") == "dbus"
    return properties.get("UnitFileState", "") in _NOT_ENABLED and not started


def _state(unit: str, properties: Mapping[str, str]) -> str:
    active, loaded = properties.get("ActiveState", ""), properties.get("LoadState", "")
    if active in ("active", "reloading"):
        return ACTIVE
    if loaded != "loaded":
        return loaded or "unknown to systemd"
    if active == "failed":
        return f"failed ({properties.get('Result') or 'no result'})"
    if active != "inactive":
        return active
    triggers = properties.get("TriggeredBy", "").split()
    if ready := next((each for each in triggers if _said("is-active", each).strip() == "active"), None):
        return f"{WAITING}: {ready} starts it"
    if properties.get("Type") == "dbus":
        return f"{WAITING}: D-Bus starts it"
    if device := missing_device(unit):
        return f"{NOT_APPLICABLE}: {device}"
    if unmet := unmet_condition(unit):
        return f"{NOT_APPLICABLE if is_of_place(unmet) else active}: {unmet} is not met"
    if is_never_started(properties):
        return f"{active}: nothing starts it at boot (enable: True in its service.running does)"
    return active


def describe(unit: str) -> str:
    """Return how a unit is and the last lines of its journal: the machine is gone when an operator reads it."""
    status = _said("status", "--no-pager", "--full", "--lines=0", unit).strip()
    journal = _said("--no-pager", f"--lines={_LINES}", "--output=cat", f"--unit={unit}", program="journalctl").strip()
    return "\n".join(part for part in (status, f"Last lines of its journal:\n{journal}" if journal else "") if part)


def show_command(units: Sequence[str], properties: Sequence[str] = _STATE) -> list[str]:
    """Return the command whose output `shown` reads."""
    return ["systemctl", "show", f"--property={','.join(properties)}", "--", *units]


def shown(output: str) -> list[dict[str, str]]:
    """Return the properties of each unit in the output of `show_command`."""
    lines = (stanza.splitlines() for stanza in output.strip().split("\n\n") if stanza)
    return [dict(line.partition("=")[::2] for line in of_unit) for of_unit in lines]


def show(units: Sequence[str], *properties: str) -> list[dict[str, str]]:
    """Return the properties of each unit, in this order; an empty list where systemd does not answer."""
    return shown(_said(*show_command(units, properties)[1:]))


def _shown(unit: str, *properties: str) -> dict[str, str]:
    return next(iter(show([unit], *properties)), {})


def run(*words: str, program: str = "systemctl") -> subprocess.CompletedProcess[str] | None:
    """Run a command of systemd; None where it cannot run, as in a chroot. Its exit code never raises."""
    try:
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _said(*words: str, program: str = "systemctl") -> str:
    done = run(*words, program=program)
    return "" if done is None else done.stdout
