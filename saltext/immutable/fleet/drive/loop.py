"""Walk a rollout to its end: drain, observe, ask the plan, commit, obey.

Only the driver touches the store. An effect is submitted after its intent is committed, and every effect may
be repeated, so that whoever comes after a killed driver carries on from the store and the provider's list.
What is done a step is proportional to what has happened since the last one, not to the size of the fleet.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.budgets import Budget, Need
from saltext.immutable.fleet.books.ledger import Intent, Ledger, Record, Wish
from saltext.immutable.fleet.decide.goal import goal
from saltext.immutable.fleet.decide.orders import Order, applied
from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import MENDING, UNLIMITED, Action, Limits, Machine, Plan, Rollout
from saltext.immutable.fleet.drive.effects import Call, Completion, Effects, Task
from saltext.immutable.fleet.drive.track import NEVER, OUT, REPLACED, SERVING, SILENT, Track
from saltext.immutable.fleet.drive.transaction import Books, Say
from saltext.immutable.fleet.drive.world import World
from saltext.immutable.minions import Event, NoAnswer
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease

LIST_EVERY = 2.0
LIST_EVERY_DOOMED = 0.5
ROUTED_EVERY = 5.0
ROUTED_EVERY_MOVING = 1.0
"""Seconds between two looks at those who send the visitors, while machines come and go."""
RETRY = 2.0
"""Seconds before a machine that is still there is told again to go, or one that is not yet there to come."""
LOOKS = 50
"""Looks at healthy machines in a second, at most: a large fleet is looked at less often."""
LISTED = 2_000
"""Machines that are listed a second, at most: a large fleet is listed less often."""
CROWD = 5_000
"""Machines with which a plan is made once a second; with fewer, more often."""
PLAN_EVERY = 5.0
"""Seconds after which a plan is made anew though nothing happened."""
AWAKE = 1.0
"""Seconds that the clock may go back: time servers do that."""
CHANGES = frozenset({"launch", "destroy", "forget"})
ASKS = frozenset({"list", "traffic", "probe"})
ROUTES = frozenset({"attach", "drain"})


class Interrupted(CommandExecutionError):  # type: ignore[misc]
    """We were told to stop; everything is written down."""


class Driver:
    """One rollout's loop. Clock, effects, names, limits and the wish to stop are given to it."""

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
        self.rollout = rollout
        self._declared = fleet.size
        self._fleet, self._ledger, self._lease = ledger.sized(fleet), ledger, lease
        self._world, self._effects = world, effects
        self._clock, self._new_id, self._say, self._stopped = clock, new_id, say, stopped
        self._windows, self._budget = windows, budget or Budget(fleet.name)
        now = clock()
        records = ledger.records()
        self._tracks = {key: Track(record, since=now, probe_at=now) for key, record in records.items()}
        for track in self._tracks.values():
            track.forget(now)  # what is written down may be of a time that has not come
        self._books = Books(ledger, lease, rollout, records, clock, say)
        self._denied_until = now
        """Others hold what the budgets allow: before this we do not ask again."""
        self._forgotten: dict[str, float] = {}
        """Machines that are gone for good, and since when: an older list may still show them."""
        self._pictures: dict[str, Machine] = {}
        self._stale = dict.fromkeys(self._tracks)
        """Machines of which something changed since the last picture, in the order in which it did."""
        self._moved = True
        """Whether any picture, or what budgets leave, has changed since the last plan."""
        self._ground: tuple[Rollout, Fleet, Limits] | None = None
        """What else that plan was made from."""
        self._planned_at = self._plan_again_at = -NEVER
        self._timers: list[tuple[float, str]] = []
        self._due_now = set(self._tracks)
        self._waiting: dict[str, None] = {}
        """Machines that only lack a free call, the first ones first."""
        self._changing = 0
        self._list_at, self._routed_at = now, now if world.routed else NEVER
        self._last_list = self._picture_of = -NEVER
        self._found: tuple[dict[str, str], dict[str, str]] = ({}, {})
        """Taints and protections as they were read last."""
        self._news_at = now + lease.ttl / 3
        self._seen_at = self._awake_since = now
        self._read_news()

    def run(self) -> Rollout:
        """Go on until the rollout has an outcome, and return it."""
        try:
            if not self.rollout.outcome:  # a pause must not depend on the provider
                self._listed(self._clock(), self._world.list())
            while not self.rollout.outcome:
                if self._stopped():
                    return self._stop()
                step = self._plan(self._clock())
                self._take(step)
                self._commit()
                if not self.rollout.outcome:
                    now = self._clock()
                    self._obey(now)
                    self._wait(self._next(step.wake, now))
            self._finish()
            return self.rollout
        finally:
            self._effects.close()

    def _stop(self) -> Rollout:
        self._finish()
        again = "resume" if self.rollout.kind in MENDING else self.rollout.kind
        raise Interrupted(
            f"stopped with {self.rollout.verdict}; `salt-run fleet.{again} {self._fleet.name}` carries on"
        )

    def _finish(self) -> None:
        """Wait for the calls under way that change something, and write down what they did."""
        while self._changing:
            self._observe(*self._effects.wait(self._books.beat_at))
            self._commit()
        self._commit()

    def _wait(self, until: float) -> None:
        """Wait for something to happen; what happens at about the same time to a large fleet is taken together."""
        self._observe(*self._effects.wait(until))
        soon = self._clock() + len(self._tracks) / CROWD
        while len(self._tracks) > LOOKS and self._clock() < soon and not self._stopped():
            self._obey(self._clock())  # what is written down already need not wait for the next plan
            self._observe(*self._effects.wait(soon))

    # Plan

    def _plan(self, now: float) -> Plan:
        """Ask the plan; what it would begin is reserved first where budgets are kept.

        Where nothing is news, the plan of a moment ago holds: it said until when.
        """
        machines, limits = self._machines(), self._windows(now)
        ground = (self.rollout, self._fleet, limits)
        if not self._moved and ground == self._ground and self._planned_at <= now < self._plan_again_at:
            return Plan((), self.rollout, self._plan_again_at)
        step = plan(self._fleet, self.rollout, machines, limits, now)
        self._moved, self._ground, self._planned_at = False, (step.rollout, self._fleet, limits), now
        self._plan_again_at = min(NEVER if step.wake is None else step.wake, now + PLAN_EVERY)
        need = self._need(step)
        if not self._budget or need == Need():
            return step
        granted = Need()
        if now >= self._denied_until:
            self._books.reserved = True
            granted = self._budget.reserve(self._lease, need, self._fleet.size, now)
            if granted == need:
                return step
            self._denied_until = now + RETRY
        self._moved = True  # it is asked again whether or not anything happens meanwhile
        limits = replace(limits, launches=granted.launches, disruptions=granted.disruptions)
        step = self._patient(plan(self._fleet, self.rollout, machines, limits, now), now)
        return replace(step, wake=min(step.wake, self._denied_until) if step.wake is not None else None)

    def _patient(self, step: Plan, now: float) -> Plan:
        """Hold it against no rollout that others have spent the budget: that is no lack of progress of its own."""
        patience = self._fleet.strategy.progress_within / 4
        if step.actions or step.rollout.outcome or now < step.rollout.progress_at + patience:
            return step
        return replace(step, rollout=replace(step.rollout, progress_at=now))

    def _need(self, step: Plan) -> Need:
        taken = [self._pictures[a.minion_id] for a in step.actions if a.minion_id and a.kind in ("drain", "destroy")]
        return Need(
            sum(action.kind == "launch" for action in step.actions),
            sum((machine.phase, machine.fault) == ("serving", None) and machine.health != "no" for machine in taken),
        )

    def _machines(self) -> list[Machine]:
        for name in self._stale:
            picture = self._tracks[name].machine(self._world.routed) if name in self._tracks else None
            if picture == self._pictures.get(name):
                continue
            self._moved = True
            if picture is not None:
                self._pictures[name] = picture
            else:
                del self._pictures[name]
        self._stale.clear()
        return list(self._pictures.values())

    def _changed(self, name: str) -> None:
        """Look at a machine again: something about it is news."""
        self._stale[name] = None
        self._books.changed(name)
        self._due_now.add(name)

    # Observe

    def _observe(self, completions: list[Completion], events: list[Event]) -> None:
        now = self._clock()
        if not self._seen_at - AWAKE < now < self._seen_at + self._lease.ttl:
            self._awake(now)
        self._seen_at = now
        for event in events:
            self._heard(event)
        for completion in completions:
            task = completion.task
            self._changing -= task.kind in CHANGES
            if task.kind in ASKS and not self._awake_since <= task.asked <= now:
                self._ask_anew(task, now)
            elif task.kind == "list":
                self._list_came(completion)
            elif task.kind == "traffic":
                self._traffic_came(completion)
            elif task.minion_id in self._tracks:
                track = self._tracks[task.minion_id]
                track.busy.discard(task.kind)
                getattr(self, f"_{task.kind}_came")(track, completion, self._clock())
                self._changed(task.minion_id)

    def _awake(self, now: float) -> None:
        """Take what was known for unknown: the clock jumped, or we have slept, nobody knows for how long."""
        self._awake_since = self._list_at = self._books.beat_at = self._denied_until = now
        self._picture_of = -NEVER
        self._routed_at = now if self._world.routed else NEVER
        reached = self.rollout.step_reached_at
        self.rollout = replace(
            self.rollout, progress_at=now, step_reached_at=None if reached is None else min(reached, now)
        )
        self._timers.clear()
        for minion_id, track in self._tracks.items():
            track.forget(now)
            track.timer = NEVER
            self._changed(minion_id)

    def _ask_anew(self, task: Task, now: float) -> None:
        """Leave an answer alone that is from before the clock jumped."""
        if task.kind == "list":
            self._list_soon(now)
        elif task.kind == "traffic":
            self._routed_at = now

    def _heard(self, event: Event) -> None:
        track = self._tracks.get(event.minion_id)
        if track is None or track.record.doomed:
            return
        if event.kind == "denied":
            track.suspect(self._clock())
        elif not track.started:  # a minion that says so all day gets no more looks than others
            track.started, track.probe_at = True, self._clock()
            track.busy.discard("probe")  # one that asked before the minion was up may hang for long
        self._changed(event.minion_id)

    def _verify_came(self, track: Track, completion: Completion, now: float) -> None:
        track.verified = now
        if completion.error is not None:
            track.suspect(now)
        elif completion.value and not track.contested:
            track.contested = True
            why = "somebody knocked under its id with another key"
            self._books.note("alarm", why, track.record.minion_id)
            if track.record.ready_since is None:
                track.fault = why

    def _list_came(self, completion: Completion) -> None:
        doomed = any(machine.phase == "doomed" for machine in self._pictures.values())
        pause = max(LIST_EVERY_DOOMED if doomed else LIST_EVERY, len(self._tracks) / LISTED)
        self._list_at = min(self._list_at, self._clock() + pause)
        if completion.error is None:
            self._listed(completion.task.asked, completion.value)

    def _list_soon(self, now: float) -> None:
        """Look what the provider lists: something has changed. The list of a large fleet takes its time."""
        self._list_at = min(self._list_at, max(now, self._last_list + len(self._tracks) / LISTED))

    def _listed(self, asked: float, instances: list[Instance]) -> None:
        now = self._clock()
        if asked < self._picture_of:
            return  # a newer one overtook it, and may have shown who came meanwhile
        self._picture_of = asked
        there = {instance.minion_id: instance for instance in instances}
        for minion_id, instance in there.items():
            if minion_id not in self._tracks and asked > self._forgotten.get(minion_id, -1.0):
                self._adopt(instance, now)
        for minion_id, track in self._tracks.items():
            if minion_id in there:
                news = track.see(there[minion_id], settled=asked >= track.touched, now=now)
            else:
                news = track.miss(asked, now, self._world.settles)
            if news:
                self._changed(minion_id)

    def _adopt(self, instance: Instance, now: float) -> None:
        """Take a machine of the fleet that is in no book as one that has to go."""
        reason = "it is tagged as ours but is in no book"
        record = Record(
            instance.minion_id, self._fleet.name, instance.generation, "doomed", instance.born, reason=reason
        )
        self._tracks[instance.minion_id] = Track(record, since=now, probe_at=NEVER)
        self._changed(instance.minion_id)
        self._books.note("destroy", reason, instance.minion_id)

    def _read_news(self) -> None:
        """Take in what was found out, ordered, or done by hand, meanwhile."""
        news = self._ledger.news(self._declared)
        found = (dict(news.taints), dict(news.protections))
        changed, self._found = found != self._found, found
        for minion_id, track in self._tracks.items() if changed else ():
            told = news.taints.get(minion_id), news.protections.get(minion_id)
            if told != (track.taint, track.protect):
                track.taint, track.protect = told
                self._stale[minion_id] = None
        if news.size != self._fleet.size:
            self._books.note("size", f"{news.size} in place of {self._fleet.size} machines are wanted")
            self._fleet = replace(self._fleet, size=news.size)
        if news.orders:
            self._take_up(news.orders)

    def _take_up(self, orders: Sequence[Order]) -> None:
        before, self.rollout = self.rollout, applied(self.rollout, orders, self._clock())
        self._books.take_up(orders)
        for order in orders:
            if order.rollout == before.id:
                self._books.note("order", str(order))
        self._mention(before)

    # What came of calls

    def _launch_came(self, track: Track, completion: Completion, now: float) -> None:
        track.touch(now)
        self._list_soon(now)
        track.retry_at = now + RETRY
        if isinstance(completion.error, NoAnswer):  # it may have come: the next list tells
            self._books.note("in doubt", f"its launch: {completion.error}", track.record.minion_id)
            return
        if completion.error is not None:
            track.fault = track.fault or f"it could not be launched: {completion.error}"
            return
        intent = track.record.intent if track.record.doomed else "launched"
        track.record = replace(track.record, ref=completion.value, intent=intent)
        track.probe_at = max(track.probe_at, now)
        name = "" if completion.value == track.record.minion_id else f" as {completion.value}"
        self._books.note("launched", f"it boots{name}", track.record.minion_id)

    def _destroy_came(self, track: Track, completion: Completion, now: float) -> None:
        self._list_soon(now)
        track.retry_at = now + RETRY
        if isinstance(completion.error, NoAnswer):
            self._books.note("in doubt", f"its end: {completion.error}", track.record.minion_id)
        elif completion.error is not None:
            self._books.note("stays", f"it could not be destroyed: {completion.error}", track.record.minion_id)
        elif completion.value:
            track.record = replace(track.record, intent="doomed")
            self._books.note("console", completion.value, track.record.minion_id)

    def _forget_came(self, track: Track, completion: Completion, now: float) -> None:
        if completion.error is not None:
            track.absent_since = None  # asked again after the next list
            self._books.note("stays", f"it could not be forgotten: {completion.error}", track.record.minion_id)
            return
        del self._tracks[track.record.minion_id]
        self._forgotten[track.record.minion_id] = now
        self._went_on(now)
        self._books.note("gone", "absent, keys deleted", track.record.minion_id)

    def _probe_came(self, track: Track, completion: Completion, now: float) -> None:
        before = track.health
        track.answer(completion.value, completion.task.asked, now, self._patience(track))
        if track.record.doomed:
            return
        if track.health == "yes" and track.record.ready_since is None:
            traffic: Wish = "out" if self._world.routed else "in"
            track.record = replace(track.record, ready_since=now, healthy_since=now, traffic=traffic)
            track.since, track.probe_at = now, now + max(SERVING, self._patience(track))
            self._went_on(now)
            seconds = now - track.record.born
            after = f" after {seconds:.1f} s" if seconds >= 0 else ""  # the clock may have been set back
            self._books.note("ready", f"image and health are right{after}", track.record.minion_id)
        elif (before, track.health) == ("yes", "no"):
            self._books.note("unhealthy", track.note, track.record.minion_id)

    def _patience(self, track: Track) -> float:
        """Return how many seconds, at least, a healthy machine is left alone after a look."""
        of_target = track.record.generation == self.rollout.target
        return max(0.0 if of_target else REPLACED, len(self._tracks) / LOOKS)

    # Traffic

    def _traffic_came(self, completion: Completion) -> None:
        now = self._clock()
        moving = any(m.phase == "draining" or (m.phase == "serving" and not m.attached) for m in self._machines())
        self._routed_at = min(self._routed_at, now + (ROUTED_EVERY_MOVING if moving else ROUTED_EVERY))
        for name, track in self._tracks.items():
            told = None if completion.error is not None else completion.value.get(name, OUT)
            if completion.task.asked < track.route_at - RETRY:
                continue  # it was told otherwise since
            came = told is not None and told.state == "in" and (track.standing is None or track.standing.state != "in")
            if track.stand(told, now):
                self._changed(name)
                if came and track.record.traffic == "in" and track.health == "yes":
                    self._went_on(now)

    def _attach_came(self, track: Track, completion: Completion, now: float) -> None:
        self._routed(track, "its traffic cannot be turned on", completion, now)

    def _drain_came(self, track: Track, completion: Completion, now: float) -> None:
        self._routed(track, "its traffic is not turned off", completion, now)

    def _routed(self, track: Track, what: str, completion: Completion, now: float) -> None:
        track.route_at = now + RETRY
        self._routed_at = now
        complaint = "" if completion.error is None else f"{what}: {completion.error}"
        if complaint and complaint != track.complaint:
            self._books.note("stays", complaint, track.record.minion_id)
        track.complaint = complaint

    def _went_on(self, now: float) -> None:
        self._denied_until = now  # our own may have left room in the budgets
        self.rollout = replace(self.rollout, progress_at=now)

    # Take and commit

    def _take(self, step: Plan) -> None:
        """Make the plan's actions intents, and note what changed about the rollout."""
        before, self.rollout = self.rollout, step.rollout
        for action in step.actions:
            self._intend(action)
        if step.rollout.step != before.step:
            self._books.note("step", f"{before.step + 1} is passed: {before.verdict}")
        if step.rollout.switched_at != before.switched_at:
            self._books.note("switch", "all newcomers are healthy: the traffic moves to them")
        self._mention(before)

    def _mention(self, before: Rollout) -> None:
        """Note where the rollout turned, or ended."""
        if self.rollout.direction != before.direction:
            self._books.note(self.rollout.direction, self.rollout.reason)
        if self.rollout.outcome != before.outcome and self.rollout.outcome:
            self._books.note(self.rollout.outcome, self.rollout.reason or self.rollout.verdict)

    def _intend(self, action: Action) -> None:
        now = self._clock()
        if action.minion_id is None:
            minion_id = self._new_id()
            born = max(now, self.rollout.started)  # also where the clock went back: it is one of this rollout's
            record = Record(minion_id, self._fleet.name, action.generation, "launch", born, reason=action.reason)
            self._tracks[minion_id] = Track(record, since=now, probe_at=now + SILENT, listed=True)
            self._changed(minion_id)
            self._books.note("launch", action.reason, minion_id)
            return
        track = self._tracks[action.minion_id]
        track.record = _intended(track.record, action)
        self._changed(action.minion_id)
        self._books.note("failed" if action.failed else action.kind, action.reason, action.minion_id)

    def _commit(self) -> None:
        self._books.commit(self.rollout, self._record)

    def _record(self, name: str) -> Record | None:
        return self._tracks[name].record if name in self._tracks else None

    # Obey

    def _obey(self, now: float) -> None:
        """Submit what is due."""
        if now >= min(self._list_at, self._news_at):  # also while a list does not come back
            self._news_at = now + self._lease.ttl / 3
            self._read_news()
        if now >= self._list_at:
            self._list_at, self._last_list = NEVER, now
            self._effects.submit(Task("list", "", now), self._world.list)
        if now >= self._routed_at:
            self._routed_at = NEVER
            self._effects.submit(Task("traffic", "", now), self._world.standing)
        while self._timers and self._timers[0][0] <= now:
            _, name = heapq.heappop(self._timers)
            if name in self._tracks:
                self._tracks[name].timer = NEVER
                self._due_now.add(name)
        due, self._due_now = sorted(self._due_now & self._tracks.keys()), set()
        for name in due:
            self._waiting.pop(name, None)
            if not self._obey_for(self._tracks[name], now):
                self._waiting[name] = None
        while self._waiting and self._changing < self._world.concurrency:
            name = next(iter(self._waiting))
            del self._waiting[name]
            if name in self._tracks and not self._obey_for(self._tracks[name], now):
                self._waiting[name] = None

    def _obey_for(self, track: Track, now: float) -> bool:
        """Submit what is due for one machine; tell whether nothing is left that only lacks a free call."""
        name, done = track.record.minion_id, True
        if track.doubt(now):
            self._stale[name] = None
        for kind, call in self._due(track, now):
            if kind in CHANGES and self._changing >= self._world.concurrency:
                done = False
                continue
            self._changing += kind in CHANGES
            track.busy.add(kind)
            self._effects.submit(Task(kind, name, now), call)
        at = self._next_of(track, now)
        if at < track.timer:
            track.timer = at
            heapq.heappush(self._timers, (at, name))
        return done

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
            if not track.busy & ROUTES and now >= track.route_at:
                yield from self._routes(track)
        elif idle and track.absent_for(now, self._world.settles):
            yield "forget", partial(self._world.forget, record.minion_id)
        elif not track.busy & {"destroy", "forget"} and record.ref is not None and now >= track.retry_at:
            yield "destroy", partial(self._world.destroy, record)

    def _routes(self, track: Track) -> Iterator[tuple[Call, Callable[[], Any]]]:
        address = track.instance.address if track.instance is not None else None
        if track.to_attach and address is not None:
            yield "attach", partial(self._world.attach, track.record, address)
        elif track.to_drain:
            floor = goal(self._fleet, self.rollout).floor
            yield "drain", partial(self._world.drain, track.record, floor if track.health == "yes" else 0)

    def _next_of(self, track: Track, now: float) -> float:
        """Return when there is something to do for a machine even if nothing is heard of it.

        What was due when we last obeyed is under way, or waits for something that will come back.
        """
        if track.record.doomed:
            gone = NEVER if track.absent_since is None else track.absent_since + self._world.settles
            times = [track.retry_at, gone]
        else:
            times = [track.retry_at, track.probe_at, track.verify_at, track.overdue_at(), track.route_at]
        return min((at for at in times if at > now), default=NEVER)

    def _next(self, wake: float | None, obeyed_at: float) -> float:
        """Return when there is something to do even if nothing comes back."""
        times = [self._list_at, self._routed_at, obeyed_at + self._lease.ttl / 3, NEVER if wake is None else wake]
        if self._timers:
            times.append(self._timers[0][0])
        if self._due_now - self._tracks.keys():
            times.append(obeyed_at)
        return min((at for at in times if at > obeyed_at), default=obeyed_at + self._lease.ttl / 3)


def _intended(record: Record, action: Action) -> Record:
    """Return the record of a machine after an action was decided."""
    if action.kind == "attach":
        return replace(record, traffic="in", drain_since=None, kept_until=None)
    if action.kind == "drain":
        return replace(record, traffic="drain", drain_since=None)
    if action.kind == "keep":
        return replace(record, kept_until=action.until)
    intent: Intent = "failed" if action.failed else "doomed"
    return replace(record, intent=intent, reason=action.reason)
