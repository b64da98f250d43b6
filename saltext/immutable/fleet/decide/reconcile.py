"""Whether a fleet is reconciled, carried on or left to its operators: pure, from the books to what to do, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Fleet

LONGEST_REST = 3600.0
"""Seconds between two attempts to mend a fleet, at most."""

Course = Literal["alarm", "busy", "leave", "rest", "carry on", "roll", "look", "nothing"]


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
class Standing:
    """What the books say of a fleet."""

    wanted: bool
    """The pillar defines it."""
    held_by: str | None
    """Who drives it now."""
    unfinished: Rollout | None
    settled: bool
    """It has a good generation."""
    machines: bool
    """The books have machines of it."""
    trials: int = 0
    """Rollouts of kind reconcile that ended otherwise than done, one after the other, up to now."""
    closed: str | None = None
    """Why no window is open."""
    revoked: Revoked = Revoked()


@dataclass(frozen=True)
class Way:
    """What to do with a fleet, and why."""

    course: Course
    reason: str
    until: float | None = None
    """When the next attempt begins."""

    @property
    def failed(self) -> bool:
        """Tell whether an operator has to know."""
        return self.course in ("alarm", "rest")


def way(fleet: Fleet, standing: Standing, now: float) -> Way:
    """Return whether a fleet is observed and mended, carried on, or left alone."""
    found = _way(fleet, standing, now)
    revoked, rollout = standing.revoked, standing.unfinished
    if found.course == "carry on" and rollout and revoked.target:
        return Way("alarm", no_further(fleet, rollout, revoked.target))
    if found.course == "look" and fleet.revoked == "replace" and not standing.closed and not stuck(fleet, revoked):
        return Way("roll", f"{revoked.runs}; {_channel(fleet)} names {revoked.instead}") if revoked.runs else found
    return found


def stuck(fleet: Fleet, revoked: Revoked) -> str | None:
    """Return why a fleet stays on a revoked image that it should leave by itself; None: it does not."""
    if fleet.revoked != "replace" or not revoked.runs:
        return None
    promote = f"promote another: salt-run image.promote {fleet.recipe}@... channel={fleet.channel}"
    if revoked.instead is None:
        return f"{revoked.runs}; {_channel(fleet)} names no other image to go to; {promote}"
    if revoked.failed is not None:
        return f"{revoked.runs}; the roll to {revoked.instead} failed: {revoked.failed}; {promote}"
    return None


def no_further(fleet: Fleet, rollout: Rollout, revoked: str) -> str:
    """Say why a rollout to a revoked image is not carried on, and what leads out of it."""
    return (
        f"its {rollout.kind} is not carried on, since {revoked}; `salt-run fleet.roll {fleet.name}` goes to what "
        f"{_channel(fleet)} names, `salt-run fleet.rollback {fleet.name}` goes back"
    )


def _channel(fleet: Fleet) -> str:
    return f"{fleet.recipe}:{fleet.channel}"


def _way(fleet: Fleet, standing: Standing, now: float) -> Way:
    """Return it as if nothing were revoked."""
    rollout = standing.unfinished
    if not standing.wanted:
        return Way("alarm", _abandoned(fleet.name))
    if standing.held_by:
        return Way("busy", f"{standing.held_by} works on it")
    if rollout and rollout.outcome == "paused":
        return _paused(fleet, rollout, standing, now)
    if rollout and rollout.kind != "reconcile":
        return Way("carry on", f"its {rollout.kind} was interrupted: {rollout.verdict or 'nothing was done yet'}")
    if not standing.settled and not standing.machines:
        return Way("nothing", f"it never was rolled; `salt-run fleet.roll {fleet.name}` launches it")
    if not standing.settled:
        return Way("leave", f"no roll of it has ended well; `salt-run fleet.roll {fleet.name}` tries again")
    return Way("look", "nobody works on it")


def _paused(fleet: Fleet, rollout: Rollout, standing: Standing, now: float) -> Way:
    if rollout.paused_by == "window":
        if rollout.kind == "reconcile":
            return Way("look", "a window paused its upkeep")
        if standing.closed:
            return Way("leave", f"its {rollout.kind} waits for a window: {standing.closed}")
        return Way("carry on", f"its {rollout.kind} waited for a window, and one is open")
    if rollout.kind != "reconcile" or rollout.paused_by == "operator":
        who = "an operator paused" if rollout.paused_by == "operator" else "a failure paused"
        return Way("leave", f"{who} its {rollout.kind}: {rollout.reason}")
    again = (rollout.ended or rollout.started) + rest(fleet, standing.trials)
    if now < again:
        return Way("rest", f"trial {standing.trials} to mend it failed: {rollout.reason}", until=again)
    return Way("look", f"trial {standing.trials} to mend it failed, and it is tried again")


def _abandoned(name: str) -> str:
    return (
        f"immutable:fleets:{name} is not in the pillar, but the fleet is in the books: nothing is done to it; "
        f"bring its definition back, or let it go with `salt-run fleet.destroy {name}`"
    )


def rest(fleet: Fleet, trials: int) -> float:
    """Return the seconds to wait after ``trials`` failed ones: ``ready_within``, doubled each time, at most an hour."""
    return float(min(fleet.strategy.ready_within * 2 ** min(max(0, trials - 1), 30), LONGEST_REST))


def trials(rollouts: Sequence[Rollout]) -> int:
    """Return how many attempts to mend a fleet failed one after the other; ``rollouts``: the newest first."""
    failed = 0
    for rollout in rollouts:
        if rollout.kind != "reconcile" or rollout.outcome not in ("paused", "aborted"):
            break
        failed += rollout.paused_by == "failure"
    return failed
