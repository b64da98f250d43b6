"""Drive a rollout to its end: observe, plan, commit, act.

Only the driver writes to the store. A call is submitted after its intent is committed, and every call may be repeated,
so that the next driver after a killed one carries on from the store and the provider's list. The cost of a step is
proportional to what has changed since the last one, not to the size of the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.budgets import Budget
from saltext.immutable.fleet.books.ledger import Intent, Ledger, Record
from saltext.immutable.fleet.decide.state import MENDING, UNLIMITED, Action, Limits, Plan, Rollout
from saltext.immutable.fleet.drive.completions import observe_list, on_completion, on_event
from saltext.immutable.fleet.drive.due import submit_due
from saltext.immutable.fleet.drive.inbox import Inbox
from saltext.immutable.fleet.drive.picture import Picture
from saltext.immutable.fleet.drive.planning import Planner
from saltext.immutable.fleet.drive.probing import PROBE_SILENT
from saltext.immutable.fleet.drive.run import Run
from saltext.immutable.fleet.drive.threads import Completion, Effects
from saltext.immutable.fleet.drive.timers import Timers
from saltext.immutable.fleet.drive.track import Track
from saltext.immutable.fleet.drive.transaction import Say, Transaction
from saltext.immutable.fleet.drive.world import World
from saltext.immutable.minions import Event
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease

SMALL = 50
"""A fleet of at most so many machines is planned again whenever a call returns."""
CROWD = 5_000
"""Machines of a fleet that is planned once a second; a smaller one is planned more often."""
SET_BACK = 1.0
"""Seconds by which the clock may go back without a reset: time servers do that."""


class Interrupted(CommandExecutionError):  # type: ignore[misc]
    """The driver was told to stop; its state is committed."""


class Driver:
    """The loop of one rollout. Its clock, effects, new ids, limits and signal to stop are passed in."""

    def __init__(
        self,
        fleet: Fleet,
        rollout: Rollout,
        ledger: Ledger,
        lease: Lease,
        world: World,
        effects: Effects,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        say: Say,
        stopped: Callable[[], bool],
        windows: Callable[[float], Limits] = lambda now: UNLIMITED,
        budget: Budget | None = None,
    ) -> None:
        self._effects, self._clock, self._new_id, self._stopped = effects, clock, new_id, stopped
        self._ttl = lease.ttl
        self._inbox = Inbox(ledger, declared=fleet.size)
        self._planner = Planner(windows, budget or Budget(fleet.name), lease)
        now, records = clock(), ledger.records()
        transaction = Transaction(ledger, lease, rollout, records, clock, say)
        timers = Timers(now, lease.ttl / 3, world.routed)

        def changed(minion_id: str) -> None:
            transaction.changed(minion_id)
            timers.due(minion_id)

        picture = Picture(records, world.routed, now, changed, fleet.strategy.ready_within)
        for minion_id in records:
            timers.due(minion_id)
        self._run = Run(
            ledger.with_effective_size(fleet), rollout, world, transaction, picture, timers, clock, valid_since=now
        )
        self._observed_at = now
        self._inbox.read(self._run)

    def run(self) -> Rollout:
        """Drive the rollout until it has an outcome, and return it."""
        run = self._run
        try:
            if not run.rollout.outcome:  # a pause that was ordered must not depend on the provider
                asked = self._clock()
                observe_list(run, run.world.list(), asked)
            while not run.rollout.outcome:
                if self._stopped():
                    return self._stop()
                step = self._planner.plan(run, self._clock())
                self._take(step)
                self._commit()
                if not run.rollout.outcome:
                    now = self._clock()
                    self._act(now)
                    self._wait(run.timers.next(step.wake, now, run.picture.tracks))
            self._finish()
            return run.rollout
        finally:
            self._effects.close()

    def _stop(self) -> Rollout:
        self._finish()
        rollout = self._run.rollout
        again = "resume" if rollout.kind in MENDING else rollout.kind
        raise Interrupted(f"stopped with {rollout.verdict}; `salt-run fleet.{again} {rollout.fleet}` carries on")

    def _finish(self) -> None:
        """Wait for the running calls that change something, and commit their results."""
        while self._run.changing:
            self._observe(*self._effects.wait(self._run.transaction.beat_at))
            self._commit()
        self._commit()

    # Observe

    def _wait(self, until: float) -> None:
        """Wait until something happens. In a large fleet, collect for a moment what happens next."""
        self._observe(*self._effects.wait(until))
        machines = self._run.picture
        soon = self._clock() + len(machines) / CROWD
        while len(machines) > SMALL and self._clock() < soon and not self._stopped():
            self._act(self._clock())  # what is committed already need not wait for the next plan
            self._observe(*self._effects.wait(soon))

    def _observe(self, completions: Sequence[Completion], events: Sequence[Event]) -> None:
        now = self._clock()
        if not self._observed_at - SET_BACK < now < self._observed_at + self._ttl:
            self._run.reset_observations(now)
        self._observed_at = now
        for event in events:
            on_event(self._run, event)
        for completion in completions:
            on_completion(self._run, completion, now)

    # Plan and commit

    def _take(self, step: Plan) -> None:
        """Turn the plan's actions into intents, and write changes of the rollout to the journal."""
        run = self._run
        before, run.rollout = run.rollout, step.rollout
        for action in step.actions:
            self._intend(action)
        if step.rollout.step != before.step:
            run.transaction.note("step", f"{before.step + 1} is passed: {before.verdict}")
        if step.rollout.switched_at != before.switched_at:
            run.transaction.note("switch", "all new machines are healthy: the traffic moves to them")
        run.note_outcome(before)

    def _intend(self, action: Action) -> None:
        run, now = self._run, self._clock()
        if action.minion_id is None:
            minion_id = self._new_id()
            born = max(now, run.rollout.started)  # never before its rollout, even if the clock went back
            record = Record(minion_id, run.fleet.name, action.generation, "launch", born, reason=action.reason)
            run.picture.add(Track(record, since=now, probe_at=now + PROBE_SILENT, listed=True))
            run.transaction.note("launch", action.reason, minion_id)
            return
        track = run.picture.tracks[action.minion_id]
        track.record = _intended(track.record, action)
        run.picture.changed(action.minion_id)
        run.transaction.note("failed" if action.failed else action.kind, action.reason, action.minion_id)

    def _commit(self) -> None:
        self._run.transaction.commit(self._run.rollout, self._run.picture.record)

    # Act

    def _act(self, now: float) -> None:
        """Submit the calls that are due; before, as often as lists are read, read what others wrote to the store."""
        if self._run.timers.is_time_to_read_books(now):
            self._inbox.read(self._run)
        submit_due(self._run, self._effects, now)


def _intended(record: Record, action: Action) -> Record:
    """Return the record of a machine with the intent of an action."""
    if action.kind == "attach":
        return replace(record, traffic="in", drain_since=None, kept_until=None)
    if action.kind == "drain":
        return replace(record, traffic="drain", drain_since=None)
    if action.kind == "keep":
        return replace(record, kept_until=action.until)
    intent: Intent = "failed" if action.failed else "doomed"
    return replace(record, intent=intent, reason=action.reason)
