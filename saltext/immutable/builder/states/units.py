"""What systemd says about units of the machine that bakes: why one cannot start here, and how a start ended."""

from __future__ import annotations

import re
import shlex
import subprocess

_SUFFIXES = ("service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope")
_UNMET = re.compile(r"((?:Condition|Assert)\w+=.*) was not met")
_FAILED = re.compile(r"((?:Condition|Assert)\w+=.*) failed\.")
_LINES = 15
"""Lines of the journal in the message about a unit that did not start."""


def full_name(unit: str) -> str:
    """Return the name of a unit with its suffix."""
    return unit if unit.rpartition(".")[2] in _SUFFIXES and "." in unit else f"{unit}.service"


def missing_device(unit: str) -> str | None:
    """Return a phrase about a device that a unit needs and that is not here, or None.

    A start would wait for it for 90 s.
    """
    shown = _show(unit, "BindsTo", "Requires", "Requisite")
    devices = [each for value in shown.values() for each in shlex.split(value) if each.endswith(".device")]
    missing = next((each for each in devices if _said("is-active", each).strip() != "active"), None)
    return f"it needs {missing}" if missing else None


def unmet_condition(unit: str) -> str | None:
    """Return a phrase about the condition or assertion for which a start is skipped, or None.

    systemd forgets the result of a start as soon as nothing needs the unit; then the conditions are tested anew.
    """
    shown = _show(unit, "ConditionResult", "ConditionTimestampMonotonic", "AssertResult", "AssertTimestampMonotonic")
    for kind in ("Condition", "Assert"):
        if shown.get(f"{kind}Result") == "no" and shown.get(f"{kind}TimestampMonotonic", "0") != "0":
            found = _UNMET.search(_said("status", "--no-pager", "--lines=0", unit))
            return f"{found[1]} is not met" if found else f"a {kind} of its unit is not met"
    done = run("condition", f"--unit={unit}", program="systemd-analyze")  # from version 250 on
    found = _FAILED.search(done.stdout + done.stderr) if done is not None and done.returncode else None
    return f"{found[1]} is not met" if found else None


def describe(unit: str) -> str:
    """Return how a unit is and the last lines of its journal: the machine is gone when an operator reads it."""
    status = _said("status", "--no-pager", "--full", "--lines=0", unit).strip()
    journal = _said("--no-pager", f"--lines={_LINES}", "--output=cat", f"--unit={unit}", program="journalctl").strip()
    return "\n".join(part for part in (status, f"Last lines of its journal:\n{journal}" if journal else "") if part)


def _show(unit: str, *properties: str) -> dict[str, str]:
    lines = _said("show", f"--property={','.join(properties)}", unit).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def run(*words: str, program: str = "systemctl") -> subprocess.CompletedProcess[str] | None:
    """Run a command of systemd; None where it cannot run, as in a chroot. Its exit code never raises."""
    try:
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _said(*words: str, program: str = "systemctl") -> str:
    done = run(*words, program=program)
    return "" if done is None else done.stdout
