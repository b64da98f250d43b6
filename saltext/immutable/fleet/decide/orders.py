"""Orders of operators to a running rollout: whether one may be given, and what it changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.fleet.decide.verdicts import paused, revived, turned_back

What = Literal["pause", "abort", "back", "approve"]


@dataclass(frozen=True)
class Order:
    """One order of an operator, about one rollout."""

    id: int
    rollout: int
    what: What
    at: float
    reason: str
    who: str | None
    step: int | None = None
    """The step of the rollout at that time: an approval counts only for the step that the operator saw."""

    def __str__(self) -> str:
        by = f" by {self.who}" if self.who else ""
        return f"{self.what}{by}: {self.reason}" if self.reason else f"{self.what}{by}"


def applied(rollout: Rollout, orders: Sequence[Order], now: float) -> Rollout:
    """Return the rollout after the orders; an order that no longer fits the rollout changes nothing."""
    for order in orders:
        if order.rollout == rollout.id and refusal(rollout, order.what) is None:
            # An abort or a rollback that was ordered after another operator's pause stays in force.
            rollout = _applied(revived(rollout, now) if rollout.outcome else rollout, order, now)
    return rollout


def _applied(rollout: Rollout, order: Order, now: float) -> Rollout:
    if order.what == "approve" and order.step not in (None, rollout.step):
        return rollout
    if order.what == "approve":
        return replace(rollout, approved=rollout.step + 1, progress_at=now)
    if order.what == "pause":
        return paused(replace(rollout, reason=str(order)), "operator", now)
    if order.what == "back":
        if rollout.direction == "back":
            return rollout
        return turned_back(rollout, str(order), now)
    return replace(rollout, direction="stop", progress_at=now, reason=str(order))


def refusal(rollout: Rollout, what: What | None) -> str | None:
    """Return why an order cannot be given to this rollout, or None. ``None`` as order: to continue."""
    name = f"rollout {rollout.id} of fleet {rollout.fleet}"
    if rollout.outcome not in (None, "paused"):
        return f"{name} has ended: {rollout.outcome}"
    if what == "back" and rollout.kind != "roll":
        again = f"`salt-run fleet.abort {rollout.fleet}` ends it"
        return f"{name} is a {rollout.kind}, which cannot be rolled back; {again}"
    if what == "back" and rollout.source is None and rollout.old_size > 0:
        return f"{name} came from no good generation; `salt-run fleet.abort {rollout.fleet}` ends it here"
    if rollout.direction == "stop" and what != "abort":
        return f"{name} is being aborted: {rollout.reason}; `salt-run fleet.abort {rollout.fleet}` finishes the abort"
    if what == "approve" and (rollout.direction != "forward" or rollout.outcome):
        return f"{name} does not go forward at the moment: {rollout.reason}"
    if what == "pause" and rollout.outcome:
        return f"{name} is paused already: {rollout.reason}"
    if what == "pause" and rollout.kind == "destroy":
        return f"{name} destroys the fleet; `salt-run fleet.abort {rollout.fleet}` stops it"
    return None
