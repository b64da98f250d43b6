"""The protocol of traffic adapters, and how the one that a pillar names is loaded.

Third parties add an adapter through the entry point group ``saltext.immutable.traffic``. The name of the entry point is
the key in the pillar's ``traffic: {haproxy: {...}}``. Its object is called with ``(settings, opts)``: the mapping below
that key (which the adapter checks) and the master's opts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from saltext.immutable import plugins

GROUP = "saltext.immutable.traffic"
State = Literal["in", "draining", "out"]
_STATES: tuple[State, ...] = ("out", "draining", "in")
"""The one with the least traffic first."""


@dataclass(frozen=True)
class TrafficStatus:
    """The state of one machine in the load balancer."""

    state: Literal["in", "draining", "out"]
    """``in``: it gets new sessions. ``draining``: it keeps its sessions and gets no new ones. ``out``: no sessions."""
    up: bool | None = None
    """The result of the load balancer's own health check; None: it has none, or no result yet."""
    sessions: int = 0
    """Current and queued sessions."""


def combined(seen: Sequence[TrafficStatus]) -> TrafficStatus:
    """Return what counts of a machine of which several load balancers say something.

    The state with the least traffic; up only if all say so; the sum of the sessions.
    """
    ups = [each.up for each in seen]
    return TrafficStatus(
        state=min((each.state for each in seen), key=_STATES.index),
        up=False if False in ups else None if None in ups else True,
        sessions=sum(each.sessions for each in seen),
    )


class Traffic(Protocol):
    """The methods of an adapter. Errors are ``CommandExecutionError``; each call may be repeated.

    Several threads call it. A machine is identified by its minion id.
    """

    def status(self) -> Mapping[str, TrafficStatus]:
        """Return every machine that was attached and not removed since; raise if the list is incomplete."""

    def attach(self, minion_id: str, address: str) -> None:
        """Send new sessions to a machine, also to one that was drained."""

    def drain(self, minion_id: str) -> None:
        """Send no new sessions to a machine; it keeps those that it has. A missing machine is no error."""

    def remove(self, minion_id: str) -> None:
        """Remove a machine at once; a missing one is no error."""


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ``SaltInvocationError`` if the adapter ``name`` is not installed or says that a setting is wrong.

    The object of the entry point may have a method ``check(settings)`` for this; one without is asked by ``load``.
    """
    plugins.check(GROUP, "traffic", name, settings)


def load(name: str, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> Traffic:
    """Return the adapter ``name`` with these settings; raise ``SaltInvocationError`` if one of them is wrong."""
    adapter: Traffic = plugins.find(GROUP, "traffic", name)(settings, opts)
    return adapter
