"""What every traffic adapter can do, and how one is found.

Third parties add theirs through the entry point group ``saltext.immutable.traffic``; its name is what the pillar's
``traffic: {haproxy: {...}}`` says, its object is called with ``(settings, opts)``: what stands below that name
(a mapping that the adapter checks itself) and the master's opts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

from salt.exceptions import SaltInvocationError

GROUP = "saltext.immutable.traffic"


@dataclass(frozen=True)
class Standing:
    """One machine as those who send the visitors see it."""

    state: Literal["in", "draining", "out"]
    """``in``: it gets new visitors. ``draining``: only those that it has. ``out``: none."""
    up: bool | None = None
    """What their own check of it says; None: they have none, or it has not come to an end yet."""
    sessions: int = 0
    """Visitors that are being served at the moment."""


class Traffic(Protocol):
    """What every adapter can do. Errors are ``CommandExecutionError``; each call may be repeated.

    Calls come from several threads. A machine is named by its minion id.
    """

    def standing(self) -> Mapping[str, Standing]:
        """Return every machine that was attached and not removed since, complete, or raise."""

    def attach(self, minion_id: str, address: str) -> None:
        """Let a machine have visitors, a drained one too."""

    def drain(self, minion_id: str) -> None:
        """Send it no new visitors; those that it has may stay. An absent machine is no error."""

    def remove(self, minion_id: str) -> None:
        """Forget a machine at once; an absent one is no error."""


def load(name: str, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> Traffic:
    """Return the adapter that the pillar calls ``name``, its settings checked."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise SaltInvocationError(f"traffic {name!r} is not installed; known here: {known}")
    adapter: Traffic = found[name].load()(settings, opts)
    return adapter
