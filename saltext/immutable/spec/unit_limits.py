"""Limits of units: ``limits: {nginx.service: {memory: 256M, tasks: 200}}`` in a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from saltext.immutable.spec import reading
from saltext.immutable.text import quoted

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,200}\.(service|slice)")


_OURS = ("immutable-*", "salt-minion.*", "salt-.service")
"""Units without which a machine is neither ready nor guarded; a drop-in of ``salt-.service`` counts for salt-minion."""
_READERS = {"memory": reading.size("1M", "16384G"), "tasks": reading.whole(1, 1 << 22)}


def unit_limits(value: object) -> dict[str, dict[str, int]]:
    """Return the limits of each unit: ``memory`` in bytes, ``tasks`` (processes and threads). Raises ValueError."""
    return {unit: _limits(unit, given) for unit, given in reading.mapping(value).items()}


def _limits(unit: str, given: Any) -> dict[str, int]:
    if not _UNIT.fullmatch(unit):
        raise ValueError(f"{quoted(unit)} is not a service or a slice; write nginx.service")
    if any(fnmatchcase(unit, ours) for ours in _OURS):
        raise ValueError(f"{unit} is what machines are managed with; limit the fleet's machines (provider: memory)")
    if not isinstance(given, Mapping) or not given or set(given) - set(_READERS):
        raise ValueError(f"{unit}: {quoted(given)} is wrong; write {{memory: 256M, tasks: 200}}")
    try:
        return {name: _READERS[name](given[name]) for name in sorted(given)}
    except ValueError as err:
        raise ValueError(f"{unit}: {err}") from err
