"""Plan what to do next with a fleet: actions with machines and reasons, from its goal and its machines. Pure.

Rules that hold for every plan:

* a healthy serving machine is taken out only if at least ``min(old size, new size) - max_unavailable`` healthy
  serving ones remain; one whose health is unknown is neither counted nor less protected;
* nothing is launched when ``size + max_surge`` machines occupy a place; kept and doomed ones are counted apart;
* a rollout ends done, rolled back, aborted or paused; without progress it is paused after ``progress_within``.

`goal` is the aim of the present step, `pools` sorts the machines by it, `verdicts` says how far the rollout is and how
it ends, `drained` decides about drained machines; each function below returns one kind of action. The cost is one walk
over the machines, and sorting those that may go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, product

from saltext.immutable.fleet.decide.drained import drained, expired, is_drained
from saltext.immutable.fleet.decide.goal import goal, soak, steps
from saltext.immutable.fleet.decide.moment import FAR, Moment, act
from saltext.immutable.fleet.decide.pools import is_available, sort_machines
from saltext.immutable.fleet.decide.state import Action, Health, Limits, Machine, Plan, Rollout, oldest_first
from saltext.immutable.fleet.decide.verdicts import closed, ended, judged, verdict
from saltext.immutable.spec.model import Fleet

USEFULNESS: tuple[tuple[Health, bool], ...] = tuple(product(("no", "unknown", "yes"), (False, True)))
"""Machines by health and by whether they are untainted, the least useful first."""


def plan(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float) -> Plan:
    """Return what to do next with a fleet, each action with its reason. Times are seconds since the epoch."""
    at = _at(fleet, rollout, machines, limits, now)
    losses = _losses(at)
    failed = [action for action in losses if action.failed]
    turned = judged(fleet, rollout, failed, FAR if at.patient else at.idle_since, now)
    if turned.outcome:
        return Plan((), turned, None)
    if losses or turned != rollout:
        machines = _doomed(machines, losses)  # in any direction
        at = _at(fleet, turned, machines, limits, now)
        others = [replace(action, failed=False) for action in _losses(at)]
        machines, losses = _doomed(machines, others), [*losses, *others]
        at = _at(fleet, turned, machines, limits, now) if others else at
    at = _stepped(at, machines)
    actions = (*losses, *_actions(at))
    rollout = replace(at.rollout, verdict=verdict(fleet, at.rollout, at.aim, at.found, limits, at.soaked))
    if actions:
        rollout = replace(rollout, progress_at=now)
    elif not at.found.doomed:
        rollout = ended(fleet, rollout, at.aim, at.found, at.soaked, limits, now)
    return Plan(actions, rollout, None if rollout.outcome else _wake(replace(at, rollout=rollout)))


def _losses(at: Moment) -> list[Action]:
    return [Action("destroy", m.generation, why, m.minion_id, failed=counts) for m, why, counts in at.found.faulty]


def _doomed(machines: Sequence[Machine], losses: Sequence[Action]) -> Sequence[Machine]:
    """Return the machines, those that are lost as doomed."""
    lost = {action.minion_id for action in losses}
    return [m if m.minion_id not in lost else replace(m, phase="doomed") for m in machines]


def _at(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float) -> Moment:
    aim = goal(fleet, rollout)
    return Moment(fleet, rollout, aim, sort_machines(fleet, rollout, aim, machines, now), limits, now)


def _wake(at: Moment) -> float:
    """Return when time alone may change the plan."""
    reached = at.rollout.step_reached_at
    soaking = reached + soak(at.fleet, at.rollout) if reached is not None and not at.soaked else FAR
    stuck = FAR if at.patient else at.idle_since + at.fleet.strategy.progress_within
    return min(at.found.wake, soaking, stuck, FAR if at.limits.until is None else at.limits.until)


# Steps


def _stepped(at: Moment, machines: Sequence[Machine]) -> Moment:
    """Return the input with the step that was reached, or the next one if soak and approval allow it."""
    while at.rollout.direction == "forward":
        at = replace(at, rollout=_reached(at))
        last = at.rollout.step >= len(steps(at.fleet, at.rollout)) - 1
        if last or not at.soaked or at.patient:
            return at
        rollout = replace(at.rollout, step=at.rollout.step + 1, step_reached_at=None, progress_at=at.now)
        at = _at(at.fleet, rollout, machines, at.limits, at.now)
    return at


def _reached(at: Moment) -> Rollout:
    """Return the rollout with the time since which its step is reached, and of the switch of blue-green."""
    rollout, reached = at.rollout, at.found.available_new >= at.aim.wanted
    if at.aim.switch and rollout.switched_at is None:
        ready = at.found.green >= at.aim.size and not at.patient and not closed(rollout, at.limits)
        return replace(rollout, switched_at=at.now, progress_at=at.now) if ready else rollout
    if reached and rollout.step_reached_at is None:
        return replace(rollout, step_reached_at=at.now, progress_at=at.now)
    return rollout if reached or rollout.step_reached_at is None else replace(rollout, step_reached_at=None)


# Actions


def _actions(at: Moment) -> Iterator[Action]:
    if at.rollout.direction in ("hold", "stop"):
        yield from _restored(at)
        return
    surplus = _surplus(at)
    attached = list(_attached(at, surplus))
    victims = [*_useless(at, surplus), *_victims(at, surplus)]
    yield from attached
    yield from victims
    done = [*drained(at, surplus), *expired(at, attached)]
    yield from done
    yield from _launches(at, attached, [*victims, *done])


def _restored(at: Moment) -> Iterator[Action]:
    """Stop here: draining machines serve again; after an abort, machines that do not serve yet are destroyed."""
    for machine in (*at.found.returning, *at.found.draining):
        if machine.health != "no":
            yield act("attach", machine, "nothing more is replaced: it keeps serving")
        elif is_drained(at, machine):
            yield act("destroy", machine, f"it is drained, and it is not healthy: {machine.note}")
    if at.rollout.direction == "stop":
        for machine in (*at.found.booting, *at.found.standby, *at.found.idle):
            yield act("destroy", machine, "it does not serve yet, and nothing more is wanted")


def _surplus(at: Moment) -> list[Machine]:
    """Return the machines of the goal that are too many, the least useful ones."""
    excess = len(at.found.wanted) - at.aim.size
    if excess <= 0:
        return []
    waiting = [m for m in at.found.wanted if m.phase in ("booting", "standby")]
    serving = [m for m in at.found.wanted if m.phase == "serving"]
    useless = chain(_least_useful_first(waiting, excess), _least_useful_first(serving, excess))
    return list(islice(chain(at.found.returning, useless), excess))


def _attached(at: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Attach healthy new machines, and machines that were drained or kept and fit again."""
    too_many = {machine.minion_id for machine in surplus}
    for machine in at.found.returning:
        if machine.minion_id not in too_many:
            yield act("attach", machine, _returns(at, machine))
    if at.aim.switch and at.rollout.switched_at is None:
        return
    for machine in (*at.found.standby, *(m for m in at.found.refill if m.phase == "standby")):
        if machine.health == "yes" and machine.minion_id not in too_many:
            yield act("attach", machine, "it is ready to serve")
    free = at.aim.wanted - len(at.found.wanted)
    spare = [m for m in at.found.kept if _may_return(at, m) and m.health == "yes"] if free > 0 else []
    for machine in spare[:free]:
        yield act("attach", machine, "it was kept, and is wanted again")


def _returns(at: Moment, machine: Machine) -> str:
    """Return why a draining machine serves again."""
    if at.rollout.direction == "back":
        return f"rollback: generation {machine.generation} is the target again"
    return "the rollout needs it again"


def _useless(at: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Destroy machines that do not serve and do not fit: at any time."""
    for machine in at.found.idle:
        yield act("destroy", machine, at.aim.against(machine))
    for machine in at.found.refill[max(0, at.stays - len(at.found.old)) :]:
        yield act("destroy", machine, f"{len(at.found.old)} of generation {machine.generation} serve, that is enough")
    for machine in surplus:
        if machine.phase in ("booting", "standby") and machine.protect is None:
            yield act("destroy", machine, _too_many(at))


def _victims(at: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Drain serving machines, the least useful first, and never below the floor."""
    stay = at.stays
    if at.aim.switch and (at.rollout.switched_at is None or not (at.fleet.traffic or at.soaked)):
        stay = at.aim.size  # any more would keep new machines from being launched
    quota = len(at.found.old) - stay
    room = _Room(at.aim.floor, at.found.available, at.found.serving, at.limits.disruptions)
    kind = "drain" if at.fleet.traffic else "destroy"
    candidates = _least_useful_first(at.found.old, min(quota, room.left))
    # The next candidate is asked for only while one is needed: the others are not sorted.
    while quota > 0 and room.left > 0 and (machine := next(candidates, None)) is not None:
        if machine.protect is None and _may_go(at, machine) and room.take(machine, _available(at, machine)):
            quota -= 1
            yield act(kind, machine, at.aim.against(machine))
    for machine in surplus:
        serves = machine.phase == "serving" and machine.protect is None
        if serves and _may_go(at, machine) and room.take(machine, _available(at, machine)):
            yield act(kind, machine, _too_many(at))


def _available(at: Moment, machine: Machine) -> bool:
    return is_available(at.fleet, machine, at.now)


def _least_useful_first(machines: Sequence[Machine], likely: int) -> Iterator[Machine]:
    """Yield unhealthy, then unknown, then healthy machines; of each the tainted and the oldest first.

    ``likely``: how many will be taken; only these are sorted.
    """
    groups: dict[tuple[Health, bool], list[Machine]] = {(health, clean): [] for health, clean in USEFULNESS}
    for machine in machines:
        groups[machine.health, machine.taint is None].append(machine)
    for group in groups.values():
        yield from oldest_first(group, likely)


def _may_go(at: Moment, machine: Machine) -> bool:
    """Tell whether the windows allow to remove a machine: an unhealthy one may be removed at any time."""
    return not closed(at.rollout, at.limits) or (at.aim.mending and not _may_be_well(at, machine))


def _may_be_well(at: Moment, machine: Machine) -> bool:
    """Tell whether a machine is healthy, or was not probed for long enough yet to know."""
    unseen = machine.health == "unknown" and at.now < machine.since + at.fleet.strategy.unhealthy_for
    return machine.health == "yes" or unseen


class _Room:
    """How many machines may still be removed."""

    def __init__(self, floor: int, available: int, serving: int, disruptions: int | None) -> None:
        self._floor, self._available, self._serving = floor, available, serving
        self._disruptions = FAR if disruptions is None else disruptions

    @property
    def left(self) -> int:
        """Return how many may still be removed, at most; 0 or less: none."""
        return self._serving - self._floor

    def take(self, machine: Machine, available: bool) -> bool:
        """Count a machine as removed if enough remain; return whether it may be removed.

        An unhealthy machine may be removed only while enough machines of any health remain: a health check that is
        wrong must not empty the fleet before one new machine has passed it. So is an outdated machine, whose health
        cannot be known.
        """
        if machine.health == "no":
            allowed = self._serving - 1 >= self._floor
        elif machine.outdated:
            allowed = self._serving - 1 >= self._floor and self._disruptions > 0
        else:
            allowed = self._available - available >= self._floor and self._disruptions > 0
        if allowed:
            self._available -= available
            self._disruptions -= machine.health != "no"
            self._serving -= 1
        return allowed


def _launches(at: Moment, attached: Sequence[Action], leaving: Sequence[Action]) -> Iterator[Action]:
    """Launch machines for the free places, including those of machines that are removed by this plan."""
    kept = {machine.minion_id for machine in at.found.kept}
    gone = sum(action.kind != "drain" and action.minion_id not in kept for action in leaving)
    returned = sum(action.minion_id in kept for action in attached)
    there = len(at.found.wanted) + returned + _unlooked(at)
    if at.aim.mending and closed(at.rollout, at.limits):
        there += sum(_may_be_well(at, machine) for machine in at.found.old)
    places = at.aim.places - at.found.occupying - returned + gone
    missing = min(at.aim.wanted - there, places, at.aim.places if at.limits.launches is None else at.limits.launches)
    crowded = at.found.doomed + gone + len(at.found.kept) - returned > at.fleet.size
    if at.aim.generation is None or crowded or (closed(at.rollout, at.limits) and not at.aim.mending):
        return
    for number in range(there + 1, there + 1 + missing):
        yield Action("launch", at.aim.generation, f"{number} of {at.aim.wanted} on generation {at.aim.generation}")
    yield from _refills(at, places - max(0, missing), max(0, missing))


def _refills(at: Moment, places: int, begun: int) -> Iterator[Action]:
    """Launch machines of the source generation for lost ones, because a soak or an approval may take days."""
    lacking = at.stays - len(at.found.old) - len(at.found.refill)
    if at.aim.stays == 0 or at.aim.source in (None, at.aim.generation):
        return  # source and target are equal: such a machine would belong to a later step
    for _ in range(min(lacking, places, places if at.limits.launches is None else at.limits.launches - begun)):
        yield Action("launch", at.aim.source, f"{at.stays} of generation {at.aim.source} keep serving in this step")


def _unlooked(at: Moment) -> int:
    """Return how many kept machines may serve again once they are probed."""
    patience = at.fleet.strategy.unhealthy_for
    return sum(m.health == "unknown" and _may_return(at, m) and at.now < m.since + patience for m in at.found.kept)


def _may_return(at: Moment, machine: Machine) -> bool:
    """Tell whether a kept machine may serve again. (A tainted one may go on serving, but is never attached again.)"""
    return at.aim.has(machine) and machine.taint is None


def _too_many(at: Moment) -> str:
    return f"{len(at.found.wanted)} machines, {at.aim.size} are wanted"
