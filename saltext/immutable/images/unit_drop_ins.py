"""The limits of units as drop-ins of systemd, which are part of an image. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.immutable.guard.seal import RUN_PATH

OVER = f"{RUN_PATH}/over-limits"
"""A line for each time that the kernel ended a unit at its limit of memory: the unit's name."""
_SETTINGS = {"memory": "MemoryMax", "tasks": "TasksMax"}


def drop_ins(policy: Mapping[str, Any]) -> dict[str, str]:
    """Return the drop-in of each unit with limits: path -> text."""
    found = policy.get("limits", {}).items()
    return {f"/etc/systemd/system/{unit}.d/immutable-limits.conf": _text(unit, limits) for unit, limits in found}


def _text(unit: str, limits: Mapping[str, int]) -> str:
    kind = unit.rpartition(".")[2].capitalize()
    lines = [f"[{kind}]", *(f"{_SETTINGS[name]}={value}" for name, value in limits.items())]
    if kind == "Service" and "memory" in limits:
        # systemd forgets why a service ended when it starts it again.
        over = f"mkdir -p -m 700 {RUN_PATH} && echo %n >>{OVER}"
        lines.append(f"ExecStopPost=+-/bin/sh -c 'test \"$SERVICE_RESULT\" != oom-kill || {{ {over}; }}'")
    return "\n".join([*lines, ""])
