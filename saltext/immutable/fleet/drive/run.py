"""One run of a driver: what the loop, the calls and their completions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.fleet.drive.picture import Picture
from saltext.immutable.fleet.drive.timers import Timers
from saltext.immutable.fleet.drive.transaction import Transaction
from saltext.immutable.fleet.drive.world import World
from saltext.immutable.spec.model import Fleet


@dataclass
class Run:
    """The state of one run. Only the driver's own thread reads and writes it."""

    fleet: Fleet
    rollout: Rollout
    world: World
    transaction: Transaction
    picture: Picture
    timers: Timers
    clock: Callable[[], float]
    valid_since: float
    """Answers to calls from before this are ignored: the clock jumped since."""
    changing: int = 0
    """How many calls that change something are running."""

    def progressed(self, now: float) -> None:
        """Note that the rollout made progress; that may have left room in the budgets."""
        self.timers.budget_at = now
        self.rollout = replace(self.rollout, progress_at=now)

    def note_outcome(self, before: Rollout) -> None:
        """Write to the journal if the direction or the outcome of the rollout differs from ``before``."""
        if self.rollout.direction != before.direction:
            self.transaction.note(self.rollout.direction, self.rollout.reason)
        if self.rollout.outcome != before.outcome and self.rollout.outcome:
            self.transaction.note(self.rollout.outcome, self.rollout.reason or self.rollout.verdict)

    def reset_observations(self, now: float) -> None:
        """Reset what was observed: the clock jumped, or this process was suspended."""
        self.valid_since = self.transaction.beat_at = now
        self.timers.restart(now)
        reached = self.rollout.step_reached_at
        self.rollout = replace(
            self.rollout, progress_at=now, step_reached_at=None if reached is None else min(reached, now)
        )
        self.picture.reset(now)
