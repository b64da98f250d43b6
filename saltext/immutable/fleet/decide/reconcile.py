"""Decide whether a fleet is observed and repaired, its rollout continued, or left to its operators. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Fleet

MAX_REST = 3600.0
"""The longest time in seconds between two attempts to repair a fleet."""

ActionKind = Literal["alarm", "busy", "leave", "rest", "carry on", "roll", "observe", "nothing"]


@dataclass(frozen=True)
class Revoked:
    """Images of a fleet that are revoked, each with the reason, and what could take their place."""

    target: str | None = None
    """The image that its unfinished rollout goes to."""
    runs: str | None = None
    """The image that it runs."""
    instead: str | None = None
    """The name of another image, which its channel names and which is not revoked."""
    failed: str | None = None
    """Why a roll to ``instead`` failed."""


@dataclass(frozen=True)
class FleetStatus:
    """What the store says of a fleet."""

    wanted: bool
    """The pillar defines it."""
    held_by: str | None
    """Which process works on it now."""
    unfinished: Rollout | None
    settled: bool
    """It has a good generation."""
    machines: bool
    """The store has machines of it."""
    failed_attempts: int = 0
    """How many of the last rollouts, all of kind reconcile, failed one after the other."""
    closed: str | None = None
    """Why no window is open."""
    revoked: Revoked = Revoked()


@dataclass(frozen=True)
class Decision:
    """What to do with a fleet, and why."""

    action: ActionKind
    reason: str
    until: float | None = None
    """When the next attempt begins."""

    @property
    def failed(self) -> bool:
        """Tell whether an operator has to act."""
        return self.action in ("alarm", "rest")


def decide(fleet: Fleet, status: FleetStatus, now: float) -> Decision:
    """Return what to do with a fleet, and why."""
    found = _decide(fleet, status, now)
    revoked, rollout = status.revoked, status.unfinished
    if found.action == "carry on" and rollout and revoked.target:
        return Decision("alarm", no_further(fleet, rollout, revoked.target))
    if found.action == "observe" and fleet.revoked == "replace" and not status.closed and not stuck(fleet, revoked):
        return Decision("roll", f"{revoked.runs}; {_channel(fleet)} names {revoked.instead}") if revoked.runs else found
    return found


def stuck(fleet: Fleet, revoked: Revoked) -> str | None:
    """Return why a fleet cannot leave a revoked image by itself (``revoked: replace``), or None."""
    if fleet.revoked != "replace" or not revoked.runs:
        return None
    promote = f"promote another: salt-run image.promote {fleet.recipe}@... channel={fleet.channel}"
    if revoked.instead is None:
        return f"{revoked.runs}; {_channel(fleet)} names no other image to go to; {promote}"
    if revoked.failed is not None:
        return f"{revoked.runs}; the roll to {revoked.instead} failed: {revoked.failed}; {promote}"
    return None


def no_further(fleet: Fleet, rollout: Rollout, revoked: str) -> str:
    """Return why a rollout to a revoked image is not continued, and what the operator can do."""
    return (
        f"its {rollout.kind} is not carried on, since {revoked}; `salt-run fleet.roll {fleet.name}` goes to what "
        f"{_channel(fleet)} names, `salt-run fleet.rollback {fleet.name}` goes back"
    )


def _channel(fleet: Fleet) -> str:
    return f"{fleet.recipe}:{fleet.channel}"


def _decide(fleet: Fleet, status: FleetStatus, now: float) -> Decision:
    """Return what to do with a fleet as if no image were revoked."""
    rollout = status.unfinished
    if not status.wanted:
        return Decision("alarm", _abandoned(fleet.name))
    if status.held_by:
        return Decision("busy", f"{status.held_by} works on it")
    if rollout and rollout.outcome == "paused":
        return _paused(fleet, rollout, status, now)
    if rollout and rollout.kind != "reconcile":
        return Decision("carry on", f"its {rollout.kind} was interrupted: {rollout.verdict or 'nothing was done yet'}")
    if not status.settled and not status.machines:
        return Decision("nothing", f"it never was rolled; `salt-run fleet.roll {fleet.name}` launches it")
    if not status.settled:
        return Decision("leave", f"no roll of it has ended well; `salt-run fleet.roll {fleet.name}` tries again")
    return Decision("observe", "nobody works on it")


def _paused(fleet: Fleet, rollout: Rollout, status: FleetStatus, now: float) -> Decision:
    if rollout.paused_by == "window":
        if rollout.kind == "reconcile":
            return Decision("observe", "a window paused its repair")
        if status.closed:
            return Decision("leave", f"its {rollout.kind} waits for a window: {status.closed}")
        return Decision("carry on", f"its {rollout.kind} waited for a window, and one is open")
    if rollout.kind != "reconcile" or rollout.paused_by == "operator":
        who = "an operator paused" if rollout.paused_by == "operator" else "a failure paused"
        return Decision("leave", f"{who} its {rollout.kind}: {rollout.reason}")
    again = (rollout.ended or rollout.started) + rest(fleet, status.failed_attempts)
    if now < again:
        return Decision("rest", f"attempt {status.failed_attempts} to repair it failed: {rollout.reason}", until=again)
    return Decision("observe", f"attempt {status.failed_attempts} to repair it failed, and it is tried again")


def _abandoned(name: str) -> str:
    return (
        f"immutable:fleets:{name} is not in the pillar, but the fleet is in the store: nothing is done to it; "
        f"bring its definition back, or destroy it with `salt-run fleet.destroy {name}`"
    )


def rest(fleet: Fleet, failed_attempts: int) -> float:
    """Return the seconds to wait after so many failures: ``ready_within``, doubled each time, at most MAX_REST."""
    return float(min(fleet.strategy.ready_within * 2 ** min(max(0, failed_attempts - 1), 30), MAX_REST))


def failed_attempts(rollouts: Sequence[Rollout]) -> int:
    """Return how many attempts to repair a fleet failed one after the other; ``rollouts``: the newest first."""
    failed = 0
    for rollout in rollouts:
        if rollout.kind != "reconcile" or rollout.outcome not in ("paused", "aborted"):
            break
        failed += rollout.paused_by == "failure"
    return failed
