"""One run of a driver: what its loop, its calls and what comes back from them share."""

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
    """A rollout that is driven. Only the driver's own thread touches it."""

    fleet: Fleet
    rollout: Rollout
    world: World
    books: Transaction
    picture: Picture
    timers: Timers
    clock: Callable[[], float]
    awake_since: float
    """Answers to what was asked before this are not believed: the clock jumped since."""
    changing: int = 0
    """Calls under way that change something."""

    def progressed(self, now: float) -> None:
        """Take in that the rollout came further; that may have left room in the budgets."""
        self.timers.budget_at = now
        self.rollout = replace(self.rollout, progress_at=now)

    def note_turn(self, before: Rollout) -> None:
        """Put into the journal that the rollout turned, or ended, since ``before``."""
        if self.rollout.direction != before.direction:
            self.books.note(self.rollout.direction, self.rollout.reason)
        if self.rollout.outcome != before.outcome and self.rollout.outcome:
            self.books.note(self.rollout.outcome, self.rollout.reason or self.rollout.verdict)

    def wake(self, now: float) -> None:
        """Take what was known for unknown: the clock jumped, or this process slept, nobody knows for how long."""
        self.awake_since = self.books.beat_at = now
        self.timers.restart(now)
        reached = self.rollout.step_reached_at
        self.rollout = replace(
            self.rollout, progress_at=now, step_reached_at=None if reached is None else min(reached, now)
        )
        self.picture.forget(now)
