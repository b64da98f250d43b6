"""What third parties add through entry points: providers and traffic adapters."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.text import quoted


def find(group: str, what: str, name: str) -> Any:
    """Return the object of the entry point ``name``; raise ``SaltInvocationError`` if it is not installed.

    ``what``: how messages call the things of this group.
    """
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SaltInvocationError(f"{what} {quoted(name)} is not installed; known here: {known}")
    return found[name].load()


def check(group: str, what: str, name: str, settings: Mapping[str, Any]) -> None:
    """Let the object of an entry point check settings, if it has a method ``check(settings)`` for that."""
    if checker := getattr(find(group, what, name), "check", None):
        checker(settings)
