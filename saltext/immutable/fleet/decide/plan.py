"""Plan what to do next with a fleet: actions with machines and reasons, from its goal and its machines. Pure.

Rules that hold for every plan:

* a healthy serving machine is taken out only if at least ``min(old size, new size) - max_unavailable`` healthy
  serving ones remain; one whose health is unknown is neither counted nor less protected;
* nothing is launched when ``size + max_surge`` machines occupy a place; kept and doomed ones are counted apart;
* a rollout ends done, rolled back, aborted or paused; without progress it is paused after ``progress_within``.

`capacity` says how many machines these are, `steps` has the goal of the present one, `pools` sorts the machines by it,
`verdicts` says how far the rollout is and how it ends, `drained` decides about drained machines; each function below
returns one kind of action. The cost is one walk over the machines, and sorting those that may go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, product

from saltext.immutable.fleet.decide.capacity import Room
from saltext.immutable.fleet.decide.drained import drained, expired, is_drained
from saltext.immutable.fleet.decide.moment import FAR, Moment, act
from saltext.immutable.fleet.decide.pools import is_available, sort_machines
from saltext.immutable.fleet.decide.state import Action, Health, Limits, Machine, Plan, Rollout, oldest_first
from saltext.immutable.fleet.decide.steps import goal, soak, steps
from saltext.immutable.fleet.decide.verdicts import closed, ended, judged, verdict
from saltext.immutable.spec.model import Fleet

USEFULNESS: tuple[tuple[Health, bool], ...] = tuple(product(("no", "unknown", "yes"), (False, True)))
"""Machines by health and by whether they are untainted, the least useful first."""


def plan(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float) -> Plan:
    """Return what to do next with a fleet, each action with its reason. Times are seconds since the epoch."""
    moment = _moment(fleet, rollout, machines, limits, now)
    losses = _losses(moment)
    failed = [action for action in losses if action.failed]
    turned = judged(fleet, rollout, failed, FAR if moment.patient else moment.idle_since, now)
    if turned.outcome:
        return Plan((), turned, None)
    if losses or turned != rollout:
        machines = _doomed(machines, losses)  # in any direction
        moment = _moment(fleet, turned, machines, limits, now)
        others = [replace(action, failed=False) for action in _losses(moment)]
        machines, losses = _doomed(machines, others), [*losses, *others]
        moment = _moment(fleet, turned, machines, limits, now) if others else moment
    moment = _stepped(moment, machines)
    actions = (*losses, *_actions(moment))
    said = verdict(fleet, moment.rollout, moment.aim, moment.found, limits, moment.soaked)
    rollout = replace(moment.rollout, verdict=said)
    if actions:
        rollout = replace(rollout, progress_at=now)
    elif not moment.found.doomed:
        rollout = ended(fleet, rollout, moment.aim, moment.found, moment.soaked, limits, now)
    return Plan(actions, rollout, None if rollout.outcome else _wake(replace(moment, rollout=rollout)))


def _losses(moment: Moment) -> list[Action]:
    return [Action("destroy", m.generation, why, m.minion_id, failed=counts) for m, why, counts in moment.found.faulty]


def _doomed(machines: Sequence[Machine], losses: Sequence[Action]) -> Sequence[Machine]:
    """Return the machines, those that are lost as doomed."""
    lost = {action.minion_id for action in losses}
    return [m if m.minion_id not in lost else replace(m, phase="doomed") for m in machines]


def _moment(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float) -> Moment:
    aim = goal(fleet, rollout)
    return Moment(fleet, rollout, aim, sort_machines(fleet, rollout, aim, machines, now), limits, now)


def _wake(moment: Moment) -> float:
    """Return when time alone may change the plan."""
    reached = moment.rollout.step_reached_at
    soaking = reached + soak(moment.fleet, moment.rollout) if reached is not None and not moment.soaked else FAR
    stuck = FAR if moment.patient else moment.idle_since + moment.fleet.strategy.progress_within
    return min(moment.found.wake, soaking, stuck, FAR if moment.limits.until is None else moment.limits.until)


# Steps


def _stepped(moment: Moment, machines: Sequence[Machine]) -> Moment:
    """Return the input with the step that was reached, or the next one if soak and approval allow it."""
    while moment.rollout.direction == "forward":
        moment = replace(moment, rollout=_reached(moment))
        last = moment.rollout.step >= len(steps(moment.fleet, moment.rollout)) - 1
        if last or not moment.soaked or moment.patient:
            return moment
        rollout = replace(moment.rollout, step=moment.rollout.step + 1, step_reached_at=None, progress_at=moment.now)
        moment = _moment(moment.fleet, rollout, machines, moment.limits, moment.now)
    return moment


def _reached(moment: Moment) -> Rollout:
    """Return the rollout with the time since which its step is reached, and of the switch of blue-green."""
    rollout, reached = moment.rollout, moment.found.available_new >= moment.aim.wanted
    if moment.aim.switch and rollout.switched_at is None:
        ready = moment.found.green >= moment.aim.size and not moment.patient and not closed(rollout, moment.limits)
        return replace(rollout, switched_at=moment.now, progress_at=moment.now) if ready else rollout
    if reached and rollout.step_reached_at is None:
        return replace(rollout, step_reached_at=moment.now, progress_at=moment.now)
    return rollout if reached or rollout.step_reached_at is None else replace(rollout, step_reached_at=None)


# Actions


def _actions(moment: Moment) -> Iterator[Action]:
    if moment.rollout.direction in ("hold", "stop"):
        yield from _restored(moment)
        return
    surplus = _surplus(moment)
    attached = list(_attached(moment, surplus))
    victims = [*_useless(moment, surplus), *_victims(moment, surplus)]
    yield from attached
    yield from victims
    done = [*drained(moment, surplus), *expired(moment, attached)]
    yield from done
    yield from _launches(moment, attached, [*victims, *done])


def _restored(moment: Moment) -> Iterator[Action]:
    """Stop here: draining machines serve again; after an abort, machines that do not serve yet are destroyed."""
    for machine in (*moment.found.returning, *moment.found.draining):
        if machine.health != "no":
            yield act("attach", machine, "nothing more is replaced: it keeps serving")
        elif is_drained(moment, machine):
            yield act("destroy", machine, f"it is drained, and it is not healthy: {machine.note}")
    if moment.rollout.direction == "stop":
        for machine in (*moment.found.booting, *moment.found.standby, *moment.found.idle):
            yield act("destroy", machine, "it does not serve yet, and nothing more is wanted")


def _surplus(moment: Moment) -> list[Machine]:
    """Return the machines of the goal that are too many, the least useful ones."""
    excess = len(moment.found.wanted) - moment.aim.size
    if excess <= 0:
        return []
    waiting = [m for m in moment.found.wanted if m.phase in ("booting", "standby")]
    serving = [m for m in moment.found.wanted if m.phase == "serving"]
    useless = chain(_least_useful_first(waiting, excess), _least_useful_first(serving, excess))
    return list(islice(chain(moment.found.returning, useless), excess))


def _attached(moment: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Attach healthy new machines, and machines that were drained or kept and fit again."""
    too_many = {machine.minion_id for machine in surplus}
    for machine in moment.found.returning:
        if machine.minion_id not in too_many:
            yield act("attach", machine, _returns(moment, machine))
    if moment.aim.switch and moment.rollout.switched_at is None:
        return
    for machine in (*moment.found.standby, *(m for m in moment.found.refill if m.phase == "standby")):
        if machine.health == "yes" and machine.minion_id not in too_many:
            yield act("attach", machine, "it is ready to serve")
    free = moment.aim.wanted - len(moment.found.wanted)
    spare = [m for m in moment.found.kept if _may_return(moment, m) and m.health == "yes"] if free > 0 else []
    for machine in spare[:free]:
        yield act("attach", machine, "it was kept, and is wanted again")


def _returns(moment: Moment, machine: Machine) -> str:
    """Return why a draining machine serves again."""
    if moment.rollout.direction == "back":
        return f"rollback: generation {machine.generation} is the target again"
    return "the rollout needs it again"


def _useless(moment: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Destroy machines that do not serve and do not fit: at any time."""
    for machine in moment.found.idle:
        yield act("destroy", machine, moment.aim.against(machine))
    old = len(moment.found.old)
    for machine in moment.found.refill[max(0, moment.stays - old) :]:
        yield act("destroy", machine, f"{old} of generation {machine.generation} serve, that is enough")
    for machine in surplus:
        if machine.phase in ("booting", "standby") and machine.protect is None:
            yield act("destroy", machine, _too_many(moment))


def _victims(moment: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Drain serving machines, the least useful first, and never below the floor."""
    stay = moment.stays
    if moment.aim.switch and (moment.rollout.switched_at is None or not (moment.fleet.traffic or moment.soaked)):
        stay = moment.aim.size  # any more would keep new machines from being launched
    quota = len(moment.found.old) - stay
    room = Room(moment.aim.floor, moment.found.available, moment.found.serving, moment.limits.disruptions)
    kind = "drain" if moment.fleet.traffic else "destroy"
    candidates = _least_useful_first(moment.found.old, min(quota, room.left))
    # The next candidate is asked for only while one is needed: the others are not sorted.
    while quota > 0 and room.left > 0 and (machine := next(candidates, None)) is not None:
        if machine.protect is None and _may_go(moment, machine) and room.take(machine, _available(moment, machine)):
            quota -= 1
            yield act(kind, machine, moment.aim.against(machine))
    for machine in surplus:
        serves = machine.phase == "serving" and machine.protect is None
        if serves and _may_go(moment, machine) and room.take(machine, _available(moment, machine)):
            yield act(kind, machine, _too_many(moment))


def _available(moment: Moment, machine: Machine) -> bool:
    return is_available(moment.fleet, machine, moment.now)


def _least_useful_first(machines: Sequence[Machine], likely: int) -> Iterator[Machine]:
    """Yield unhealthy, then unknown, then healthy machines; of each the tainted and the oldest first.

    ``likely``: how many will be taken; only these are sorted.
    """
    groups: dict[tuple[Health, bool], list[Machine]] = {(health, clean): [] for health, clean in USEFULNESS}
    for machine in machines:
        groups[machine.health, machine.taint is None].append(machine)
    for group in groups.values():
        yield from oldest_first(group, likely)


def _may_go(moment: Moment, machine: Machine) -> bool:
    """Tell whether the windows allow to remove a machine: an unhealthy one may be removed at any time."""
    return not closed(moment.rollout, moment.limits) or (moment.aim.mending and not _may_be_well(moment, machine))


def _may_be_well(moment: Moment, machine: Machine) -> bool:
    """Tell whether a machine is healthy, or was not probed for long enough yet to know."""
    unseen = machine.health == "unknown" and moment.now < machine.since + moment.fleet.strategy.unhealthy_for
    return machine.health == "yes" or unseen


def _launches(moment: Moment, attached: Sequence[Action], leaving: Sequence[Action]) -> Iterator[Action]:
    """Launch machines for the free places, including those of machines that are removed by this plan."""
    kept = {machine.minion_id for machine in moment.found.kept}
    gone = sum(action.kind != "drain" and action.minion_id not in kept for action in leaving)
    returned = sum(action.minion_id in kept for action in attached)
    there = len(moment.found.wanted) + returned + _not_probed_yet(moment)
    if moment.aim.mending and closed(moment.rollout, moment.limits):
        there += sum(_may_be_well(moment, machine) for machine in moment.found.old)
    places = moment.aim.places - moment.found.occupying - returned + gone
    allowed = moment.aim.places if moment.limits.launches is None else moment.limits.launches
    missing = min(moment.aim.wanted - there, places, allowed)
    crowded = moment.found.doomed + gone + len(moment.found.kept) - returned > moment.fleet.size
    if moment.aim.generation is None or crowded or (closed(moment.rollout, moment.limits) and not moment.aim.mending):
        return
    for number in range(there + 1, there + 1 + missing):
        which = f"{number} of {moment.aim.wanted} on generation {moment.aim.generation}"
        yield Action("launch", moment.aim.generation, which)
    yield from _refills(moment, places - max(0, missing), max(0, missing))


def _refills(moment: Moment, places: int, begun: int) -> Iterator[Action]:
    """Launch machines of the source generation for lost ones, because a soak or an approval may take days."""
    lacking = moment.stays - len(moment.found.old) - len(moment.found.refill)
    if moment.aim.stays == 0 or moment.aim.source in (None, moment.aim.generation):
        return  # source and target are equal: such a machine would belong to a later step
    allowed = places if moment.limits.launches is None else moment.limits.launches - begun
    why = f"{moment.stays} of generation {moment.aim.source} keep serving in this step"
    for _ in range(min(lacking, places, allowed)):
        yield Action("launch", moment.aim.source, why)


def _not_probed_yet(moment: Moment) -> int:
    """Return how many kept machines may serve again once they are probed."""
    patience = moment.fleet.strategy.unhealthy_for
    kept = [m for m in moment.found.kept if m.health == "unknown" and _may_return(moment, m)]
    return sum(moment.now < m.since + patience for m in kept)


def _may_return(moment: Moment, machine: Machine) -> bool:
    """Tell whether a kept machine may serve again. (A tainted one may go on serving, but is never attached again.)"""
    return moment.aim.has(machine) and machine.taint is None


def _too_many(moment: Moment) -> str:
    return f"{len(moment.found.wanted)} machines, {moment.aim.size} are wanted"
