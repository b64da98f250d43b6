"""Walk a rollout to its end: drain, observe, ask the plan, commit, obey.

Only the driver touches the store. An effect is submitted after its intent is committed, and every effect may
be repeated, so that whoever comes after a killed driver carries on from the store and the provider's list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.effects import Call, Completion, Effects, Task
from saltext.immutable.fleet.ledger import Entry, Intent, Ledger, Record
from saltext.immutable.fleet.plan import Action, Machine, Plan, Rollout, plan
from saltext.immutable.fleet.track import NEVER, SERVING, SILENT, Track
from saltext.immutable.fleet.world import World
from saltext.immutable.minions import Event, NoAnswer
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease

LIST_EVERY = 2.0
LIST_EVERY_DOOMED = 0.5
RETRY = 2.0
"""Seconds before a machine that is still there is told again to go, or one that is not yet there to come."""
CHANGES = frozenset({"launch", "destroy", "forget"})

Say = Callable[[Entry], None]


class Interrupted(CommandExecutionError):  # type: ignore[misc]
    """We were told to stop; everything is written down."""


class Driver:
    """One rollout's loop. Clock, effects, names and the wish to stop are given to it."""

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
    ) -> None:
        self.rollout = rollout
        self._fleet, self._ledger, self._lease = fleet, ledger, lease
        self._world, self._effects = world, effects
        self._clock, self._new_id, self._say, self._stopped = clock, new_id, say, stopped
        now = clock()
        records = ledger.records()
        self._tracks = {key: Track(record, since=now, probe_at=now) for key, record in records.items()}
        self._look_up_taints()
        self._written = (rollout, records)
        self._entries: list[Entry] = []
        self._forgotten: dict[str, float] = {}
        """Machines that are gone for good, and since when: an older list may still show them."""
        self._list_at = now
        self._beat_at = now + lease.ttl / 3

    def run(self) -> Rollout:
        """Go on until the rollout has an outcome, and return it."""
        try:
            self._listed(self._clock(), self._world.list())
            while not self.rollout.outcome:
                if self._stopped():
                    return self._stop()
                step = plan(self._fleet, self.rollout, self._machines(), self._clock())
                self._take(step)
                self._commit()
                if not self.rollout.outcome:
                    now = self._clock()
                    self._obey(now)
                    self._observe(*self._effects.wait(self._next(step.wake, now)))
            self._finish()
            return self.rollout
        finally:
            self._effects.close()

    def _stop(self) -> Rollout:
        self._finish()
        raise Interrupted(
            f"stopped with {self.rollout.verdict}; `salt-run fleet.{self.rollout.kind} {self._fleet.name}` carries on"
        )

    def _finish(self) -> None:
        """Wait for the calls under way that change something, and write down what they did."""
        while any(track.busy & CHANGES for track in self._tracks.values()):
            self._observe(*self._effects.wait(self._beat_at))
            self._commit()
        self._commit()

    # Observe

    def _observe(self, completions: list[Completion], events: list[Event]) -> None:
        for event in events:
            self._heard(event)
        for completion in completions:
            if completion.task.kind == "list":
                self._list_came(completion)
            elif completion.task.minion_id in self._tracks:
                track = self._tracks[completion.task.minion_id]
                track.busy.discard(completion.task.kind)
                handler = getattr(self, f"_{completion.task.kind}_came")
                handler(track, completion, self._clock())
        for track in self._tracks.values():
            track.doubt(self._clock())

    def _heard(self, event: Event) -> None:
        track = self._tracks.get(event.minion_id)
        if track is None or track.record.doomed:
            return
        if event.kind == "denied":
            track.suspect(self._clock())
        elif not track.started:  # a minion that says so all day gets no more looks than others
            track.started, track.probe_at = True, self._clock()
            track.busy.discard("probe")  # one that asked before the minion was up may hang for long

    def _verify_came(self, track: Track, completion: Completion, now: float) -> None:
        track.verified = now
        if completion.error is not None:
            track.suspect(now)
        elif completion.value and not track.contested:
            track.contested = True
            why = "somebody knocked under its id with another key"
            self._note("alarm", why, track.record.minion_id)
            if track.record.ready_since is None:
                track.fault = why

    def _list_came(self, completion: Completion) -> None:
        doomed = any(track.record.doomed for track in self._tracks.values())
        self._list_at = min(self._list_at, self._clock() + (LIST_EVERY_DOOMED if doomed else LIST_EVERY))
        if completion.error is None:
            self._listed(completion.task.asked, completion.value)

    def _listed(self, asked: float, instances: list[Instance]) -> None:
        now = self._clock()
        there = {instance.minion_id: instance for instance in instances}
        for minion_id, instance in there.items():
            if minion_id not in self._tracks and asked > self._forgotten.get(minion_id, -1.0):
                self._adopt(instance, now)
        for minion_id, track in self._tracks.items():
            if minion_id in there:
                track.see(there[minion_id], settled=asked >= track.touched)
            else:
                track.miss(asked, now, self._world.settles)

    def _look_up_taints(self) -> None:
        """Take in what was found out, or done by hand, meanwhile."""
        taints = self._ledger.tainted()
        for minion_id, track in self._tracks.items():
            track.taint = taints.get(minion_id)

    def _adopt(self, instance: Instance, now: float) -> None:
        """Take a machine of the fleet that is in no book as one that has to go."""
        reason = "it is tagged as ours but is in no book"
        record = Record(
            instance.minion_id, self._fleet.name, instance.generation, "doomed", instance.born, reason=reason
        )
        self._tracks[instance.minion_id] = Track(record, since=now, probe_at=NEVER)
        self._note("destroy", reason, instance.minion_id)

    def _launch_came(self, track: Track, completion: Completion, now: float) -> None:
        track.touch(now)
        self._list_at = now
        track.retry_at = now + RETRY
        if isinstance(completion.error, NoAnswer):  # it may have come: the next list tells
            self._note("in doubt", f"its launch: {completion.error}", track.record.minion_id)
            return
        if completion.error is not None:
            track.fault = track.fault or f"it could not be launched: {completion.error}"
            return
        intent = track.record.intent if track.record.doomed else "launched"
        track.record = replace(track.record, ref=completion.value, intent=intent)
        track.probe_at = max(track.probe_at, now)
        name = "" if completion.value == track.record.minion_id else f" as {completion.value}"
        self._note("launched", f"it boots{name}", track.record.minion_id)

    def _destroy_came(self, track: Track, completion: Completion, now: float) -> None:
        self._list_at = now
        track.retry_at = now + RETRY
        if isinstance(completion.error, NoAnswer):
            self._note("in doubt", f"its end: {completion.error}", track.record.minion_id)
        elif completion.error is not None:
            self._note("stays", f"it could not be destroyed: {completion.error}", track.record.minion_id)
        elif completion.value:
            track.record = replace(track.record, intent="doomed")
            self._note("console", completion.value, track.record.minion_id)

    def _forget_came(self, track: Track, completion: Completion, now: float) -> None:
        if completion.error is not None:
            track.absent_since = None  # asked again after the next list
            self._note("stays", f"its keys could not be deleted: {completion.error}", track.record.minion_id)
            return
        del self._tracks[track.record.minion_id]
        self._forgotten[track.record.minion_id] = now
        self._went_on(now)
        self._note("gone", "absent, keys deleted", track.record.minion_id)

    def _probe_came(self, track: Track, completion: Completion, now: float) -> None:
        before = track.health
        track.answer(completion.value, completion.task.asked, now)
        if track.record.doomed:
            return
        if track.health == "yes" and track.record.ready_since is None:
            track.record = replace(track.record, ready_since=now)
            track.since, track.probe_at = now, now + SERVING
            self._went_on(now)
            seconds = now - track.record.born
            self._note("ready", f"image and health are right after {seconds:.1f} s", track.record.minion_id)
        elif (before, track.health) == ("yes", "no"):
            self._note("unhealthy", track.note, track.record.minion_id)

    def _went_on(self, now: float) -> None:
        self.rollout = replace(self.rollout, progress_at=now)

    # Take and commit

    def _take(self, step: Plan) -> None:
        """Make the plan's actions intents, and note what changed about the rollout."""
        before, self.rollout = self.rollout, step.rollout
        for action in step.actions:
            self._intend(action)
        if step.rollout.direction != before.direction:
            self._note(step.rollout.direction, step.rollout.reason)
        if step.rollout.outcome:
            self._note(step.rollout.outcome, step.rollout.reason or step.rollout.verdict)

    def _intend(self, action: Action) -> None:
        now = self._clock()
        if action.minion_id is None:
            minion_id = self._new_id()
            record = Record(minion_id, self._fleet.name, action.generation, "launch", now, reason=action.reason)
            self._tracks[minion_id] = Track(record, since=now, probe_at=now + SILENT, listed=True)
            self._note("launch", action.reason, minion_id)
        else:
            track = self._tracks[action.minion_id]
            intent: Intent = "failed" if action.failed else "doomed"
            track.record = replace(track.record, intent=intent, reason=action.reason)
            self._note("failed" if action.failed else "destroy", action.reason, action.minion_id)

    def _note(self, what: str, reason: str, minion_id: str | None = None) -> None:
        self._entries.append(Entry(self._clock(), what, minion_id, reason))

    def _commit(self) -> None:
        """Write what changed in one transaction; without a change, only keep the lease."""
        records = {key: track.record for key, track in self._tracks.items()}
        rollout, written = self._written
        if (self.rollout, records) != self._written or self._entries:
            changed = [record for key, record in records.items() if written.get(key) != record]
            gone = [key for key in written if key not in records]
            self._ledger.commit(self._lease, self.rollout, changed, gone, self._entries)
        elif self._clock() >= self._beat_at:
            self._lease.beat()
        else:
            return
        self._beat_at = self._clock() + self._lease.ttl / 3
        self._written = (self.rollout, records)
        said, self._entries = self._entries, []
        for entry in said:
            self._say(entry)

    # Obey

    def _obey(self, now: float) -> None:
        """Submit what is due."""
        if now >= self._list_at:
            self._list_at = NEVER
            self._look_up_taints()
            self._effects.submit(Task("list", "", now), self._world.list)
        for track in self._tracks.values():
            for kind, call in self._due(track, now):
                if kind in CHANGES and self._changing() >= self._world.concurrency:
                    continue
                track.busy.add(kind)
                self._effects.submit(Task(kind, track.record.minion_id, now), call)

    def _due(self, track: Track, now: float) -> Iterator[tuple[Call, Callable[[], Any]]]:
        record = track.record
        idle = not track.busy & CHANGES
        if not record.doomed:
            if "verify" not in track.busy and now >= track.verify_at:
                track.verify_at = NEVER
                yield "verify", partial(self._world.contested, record.minion_id)
            if record.ref is None and track.listed and track.fault is None and idle and now >= track.retry_at:
                yield "launch", partial(self._world.launch, record)
            elif track.instance is not None and "probe" not in track.busy and now >= track.probe_at:
                track.asked = now
                address = track.instance.address
                yield "probe", partial(self._world.probe, record, address, track.proven)
        elif idle and track.absent_for(now, self._world.settles):
            yield "forget", partial(self._world.forget, record.minion_id)
        elif not track.busy & {"destroy", "forget"} and record.ref is not None and now >= track.retry_at:
            yield "destroy", partial(self._world.destroy, record)

    def _changing(self) -> int:
        return sum(bool(track.busy & CHANGES) for track in self._tracks.values())

    def _machines(self) -> list[Machine]:
        return [track.machine() for track in self._tracks.values()]

    def _next(self, wake: float | None, obeyed: float) -> float:
        """Return when there is something to do even if nothing comes back.

        What was due when we last obeyed is under way, or waits for something that will come back.
        """
        times = [self._list_at, obeyed + self._lease.ttl / 3, NEVER if wake is None else wake]
        for track in self._tracks.values():
            gone = NEVER if track.absent_since is None else track.absent_since + self._world.settles
            looks = [track.probe_at, track.verify_at, track.overdue_at()]
            times += [track.retry_at, *([gone] if track.record.doomed else looks)]
        return min(at for at in times if at > obeyed)
