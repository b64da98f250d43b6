"""Limits of units: ``limits: {nginx.service: {memory: 256M, tasks: 200}}`` in a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saltext.immutable.spec import reading
from saltext.immutable.text import quoted

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}\.(service|slice)")


def _tasks(value: object) -> int:
    if not (found := reading.count(value)):
        raise ValueError("tasks must be 1 or more")
    return found


_READERS = {"memory": reading.size, "tasks": _tasks}


def unit_limits(value: object) -> dict[str, dict[str, int]]:
    """Return the limits of each unit: ``memory`` in bytes, ``tasks`` (processes and threads). Raises ValueError."""
    return {unit: _limits(unit, given) for unit, given in reading.mapping(value).items()}


def _limits(unit: str, given: Any) -> dict[str, int]:
    if not _UNIT.fullmatch(unit):
        raise ValueError(f"{quoted(unit)} is not a service or a slice; write nginx.service")
    if not isinstance(given, Mapping) or not given or set(given) - set(_READERS):
        raise ValueError(f"{unit}: {quoted(given)} is wrong; write {{memory: 256M, tasks: 200}}")
    try:
        return {name: _READERS[name](given[name]) for name in sorted(given)}
    except ValueError as err:
        raise ValueError(f"{unit}: {err}") from err
