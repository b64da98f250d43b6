"""What to do next with a fleet: pure, from what is wanted and what is there to named actions with reasons.

Rules that hold for every plan:

* a healthy serving machine is removed only if at least ``min(old size, new size) - max_unavailable`` healthy
  serving ones remain; one whose health is unknown is neither counted nor less protected;
* a tainted machine is none of the wanted generation, whatever it was launched as, but serves while it is healthy;
* nothing is launched when ``size + max_surge`` machines occupy a place; doomed ones are counted apart;
* a rollout ends done, rolled back or paused, and ``progress_within`` makes silence impossible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from saltext.immutable.spec.model import Fleet

Kind = Literal["roll", "rollback", "destroy"]
Direction = Literal["forward", "back", "hold"]
Outcome = Literal["done", "rolled back", "aborted", "paused"]
Health = Literal["yes", "no", "unknown"]
Phase = Literal["booting", "serving", "doomed"]


@dataclass(frozen=True)
class Rollout:
    """The recorded walk of a fleet from one generation to another."""

    id: int
    fleet: str
    kind: Kind
    source: int | None
    """Generation that the fleet comes from; None: it had none."""
    target: int | None
    """Pinned generation that it goes to; None: every machine goes."""
    old_size: int
    """Machines of the fleet when this rollout began."""
    started: float
    progress_at: float
    """When something last went on."""
    direction: Direction = "forward"
    """``back``: the new machines go, the old stay. ``hold``: only what failed goes, then it is paused."""
    failures: Mapping[str, float] = field(default_factory=dict)
    """New machines that failed in this direction, and when."""
    verdict: str = ""
    """What the last plan said."""
    outcome: Outcome | None = None
    reason: str = ""
    """Why it turned back, was paused or was aborted."""
    ended: float | None = None


@dataclass(frozen=True)
class Machine:
    """What is known of one machine."""

    minion_id: str
    generation: int
    phase: Phase
    """``booting`` from when the launch is wanted; ``serving`` once it was ready; ``doomed``: it goes."""
    born: float
    since: float
    """Since when ``health`` is what it is; booting machines: since when we wait."""
    health: Health = "unknown"
    note: str = ""
    """Why the health is not ``yes``."""
    fault: str | None = None
    """Why it will never serve (again)."""
    taint: str | None = None
    """Why it is no longer what its image says: it serves until a newcomer takes its place."""


@dataclass(frozen=True)
class Action:
    """One thing to do, and why."""

    kind: Literal["launch", "destroy"]
    generation: int
    reason: str
    minion_id: str | None = None
    """The victim; a launch gets its random id later."""
    failed: bool = False
    """The victim never did its duty, so that its console is worth keeping."""


@dataclass(frozen=True)
class Plan:
    """What to do now, what to remember, and when to ask again at the latest."""

    actions: tuple[Action, ...]
    rollout: Rollout
    wake: float | None


@dataclass(frozen=True)
class Goal:
    """What a rollout is after at the moment."""

    generation: int | None
    size: int
    floor: int
    """Healthy serving machines that no removal may go below."""
    places: int
    """Machines that may exist, the doomed apart."""
    stayed: float | None = None
    """On the way back: what was born before this stays as it is, tainted or not."""

    def has(self, machine: Machine) -> bool:
        """Tell whether a machine is one of those that are wanted."""
        stayed = self.stayed is not None and machine.born < self.stayed
        return machine.generation == self.generation and (machine.taint is None or stayed)


def goal(fleet: Fleet, rollout: Rollout) -> Goal:
    """Return what the rollout is after: its target, or on the way back what the fleet had before."""
    size = fleet.size if rollout.kind != "destroy" else 0
    floor = max(0, min(rollout.old_size, size) - fleet.strategy.max_unavailable.down(size))
    generation, stayed = rollout.target, None
    if rollout.direction == "back":
        generation, size = rollout.source, min(rollout.old_size, size) if rollout.source is not None else 0
        stayed = rollout.started
    return Goal(generation, size, floor, size + fleet.strategy.max_surge.up(fleet.size), stayed)


def plan(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], now: float) -> Plan:
    """Decide what happens next."""
    faults = {machine.minion_id: why for machine in machines if (why := _fault(fleet, rollout, machine, now))}
    losses = [
        Action("destroy", m.generation, faults[m.minion_id], m.minion_id, failed=_counts(fleet, rollout, m))
        for m in machines
        if m.minion_id in faults
    ]
    rollout = _judge(fleet, rollout, [action for action in losses if action.failed], now)
    if rollout.outcome:
        return Plan((), rollout, None)
    aim = goal(fleet, rollout)
    alive = [m for m in machines if m.phase != "doomed" and m.minion_id not in faults]
    doomed = len(machines) - len(alive)
    steps = [] if rollout.direction == "hold" else list(_steps(fleet, aim, alive, doomed))
    actions = (*losses, *steps)
    rollout = replace(rollout, verdict=_verdict(aim, alive, doomed))
    if not actions and not doomed:
        rollout = _ended(rollout, aim, alive, now)
    elif actions:
        rollout = replace(rollout, progress_at=now)
    return Plan(actions, rollout, None if rollout.outcome else _wake(fleet, rollout, alive))


def _steps(fleet: Fleet, aim: Goal, alive: Sequence[Machine], doomed: int) -> Iterator[Action]:
    """Name the victims that may go now, then fill the places that are free."""
    left = list(alive)
    for machine, reason in _unwanted(aim, alive):
        if _removable(machine, left, aim.floor):
            left.remove(machine)
            yield Action("destroy", machine.generation, reason, machine.minion_id)
    there = sum(aim.has(machine) for machine in left)
    missing = min(aim.size - there, aim.places - len(left))
    if aim.generation is None or doomed + len(alive) - len(left) > fleet.size:
        return
    for number in range(there + 1, there + 1 + missing):
        yield Action("launch", aim.generation, f"{number} of {aim.size} on generation {aim.generation}")


def _unwanted(aim: Goal, alive: Sequence[Machine]) -> Iterator[tuple[Machine, str]]:
    """Name the machines that should go, the least useful first, with the reason."""
    order = {"no": 0, "unknown": 1, "yes": 2}
    ranked = sorted(alive, key=lambda m: (m.phase == "serving", order[m.health], m.taint is None, m.born, m.minion_id))
    for machine in ranked:
        if machine.generation != aim.generation:
            wanted = f"generation {aim.generation} is wanted" if aim.generation else "no machine is wanted"
            yield machine, f"generation {machine.generation} goes: {wanted}"
        elif not aim.has(machine):
            yield machine, f"tainted: {machine.taint}"
    current = [machine for machine in ranked if aim.has(machine)]
    for machine in current[: max(0, len(current) - aim.size)]:
        yield machine, f"{len(current)} machines, {aim.size} are wanted"


def _removable(machine: Machine, left: Sequence[Machine], floor: int) -> bool:
    """Tell whether enough remains. What is known to be ill may go while enough machines of any health remain:
    a check that is itself wrong must not empty the fleet before one new machine has passed it.
    """
    if machine.phase != "serving":
        return True
    others = [other for other in left if other is not machine and other.phase == "serving"]
    if machine.health == "no":
        return len(others) >= floor
    return sum(other.health == "yes" for other in others) >= floor


def _counts(fleet: Fleet, rollout: Rollout, machine: Machine) -> bool:
    """Tell whether the machine is one that this rollout launched for where it goes now.

    What somebody changed since proves nothing about the image.
    """
    return goal(fleet, rollout).has(machine) and machine.born >= rollout.started


def _fault(fleet: Fleet, rollout: Rollout, machine: Machine, now: float) -> str | None:
    """Return why a machine must go for its own sake."""
    if machine.phase == "doomed":
        return None
    deadline = _deadline(fleet, rollout, machine)
    if machine.fault is None and deadline is not None and now >= deadline:
        state = "not ready" if machine.phase == "booting" else "not healthy"
        return f"{state} within {fleet.strategy.ready_within:g} s: {machine.note or 'it did not answer'}"
    return machine.fault


def _deadline(fleet: Fleet, rollout: Rollout, machine: Machine) -> float | None:
    """Return when a machine that is not healthy is given up; old machines get no deadline."""
    if machine.phase == "booting" or (machine.health != "yes" and _counts(fleet, rollout, machine)):
        return machine.since + fleet.strategy.ready_within
    return None


def _judge(fleet: Fleet, rollout: Rollout, failed: Sequence[Action], now: float) -> Rollout:
    """Count the failures; turn back or hold when there are too many, pause when nothing goes on."""
    strategy = fleet.strategy
    failures = {**rollout.failures, **{str(action.minion_id): now for action in failed}}
    rollout = replace(rollout, failures=failures)
    if failed and len(failures) > strategy.max_failures and rollout.direction != "hold":
        return _turned(fleet, rollout, f"{failed[0].minion_id}: {failed[0].reason}", "hold", now)
    if now >= rollout.progress_at + strategy.progress_within:
        why = f"nothing went on for {strategy.progress_within:g} s: {rollout.verdict}"
        return _turned(fleet, rollout, why, "pause", now)
    return rollout


def _turned(fleet: Fleet, rollout: Rollout, why: str, otherwise: Literal["hold", "pause"], now: float) -> Rollout:
    """Send a rollout back where that is wanted and possible, else stop it."""
    forward = rollout.direction == "forward"
    reason = why if forward else f"{why} (on the way {rollout.direction} because of {rollout.reason})"
    nowhere = rollout.source is None and rollout.old_size > 0  # it never was well, but some of it serves
    if forward and rollout.kind == "roll" and fleet.strategy.on_failure == "rollback" and not nowhere:
        return replace(rollout, direction="back", failures={}, progress_at=now, reason=reason)
    if otherwise == "hold":
        return replace(rollout, direction="hold", progress_at=now, reason=reason)
    return _paused(replace(rollout, reason=reason), now)


def _paused(rollout: Rollout, now: float) -> Rollout:
    """Stop a rollout; its reason names the commands that lead on."""
    again = f"`salt-run fleet.{rollout.kind} {rollout.fleet}` tries again"
    way_back = rollout.kind == "roll" and rollout.source is not None
    back = f", `salt-run fleet.rollback {rollout.fleet}` goes back" if way_back else ""
    return replace(rollout, outcome="paused", reason=f"{rollout.reason}; {again}{back}", ended=now)


def _ended(rollout: Rollout, aim: Goal, alive: Sequence[Machine], now: float) -> Rollout:
    """Return the rollout with its outcome once nothing is left to do."""
    if rollout.direction == "hold":
        return _paused(rollout, now)
    right = [m for m in alive if aim.has(m) and _right(rollout, m)]
    if not len(right) == len(alive) == aim.size:
        return rollout
    return replace(rollout, outcome="done" if rollout.direction == "forward" else "rolled back", ended=now)


def _right(rollout: Rollout, machine: Machine) -> bool:
    """Tell whether a machine is as the end wants it. On the way back those that stayed need only serve as
    before: a check that came with the new image may be one that the old image cannot pass.
    """
    stayed = rollout.direction == "back" and machine.born < rollout.started
    return machine.phase == "serving" and (stayed or machine.health == "yes")


def _verdict(aim: Goal, alive: Sequence[Machine], doomed: int) -> str:
    """Say in a sentence without times how far it is."""
    current = [m for m in alive if aim.has(m)]
    tainted = [m for m in alive if m.generation == aim.generation and not aim.has(m)]
    good = sum((m.phase, m.health) == ("serving", "yes") for m in current)
    parts = [f"{good} of {aim.size} healthy on generation {aim.generation}"] if aim.generation else []
    counts = {
        "booting": sum(m.phase == "booting" for m in alive),
        "serving but not healthy": sum(m.phase == "serving" and m.health == "no" for m in alive),
        "of unknown health": sum(m.phase == "serving" and m.health == "unknown" for m in alive),
        "tainted": len(tainted),
        "of other generations": len(alive) - len(current) - len(tainted),
        "going": doomed,
    }
    return ", ".join(parts + [f"{n} {what}" for what, n in counts.items() if n]) or "no machine is left"


def _wake(fleet: Fleet, rollout: Rollout, alive: Sequence[Machine]) -> float:
    """Return when time alone may change the plan."""
    deadlines = [_deadline(fleet, rollout, machine) for machine in alive]
    progress = rollout.progress_at + fleet.strategy.progress_within
    return min([progress, *(at for at in deadlines if at is not None)])


def _well(machine: Machine) -> Machine:
    return machine if machine.phase == "doomed" else replace(machine, phase="serving", health="yes")


def forecast(fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], now: float) -> list[Action]:
    """Return every action up to the end, if all goes well and every serving machine is healthy."""
    actions: list[Action] = []
    aim = goal(fleet, rollout)
    world = {m.minion_id: _well(m) if m.phase != "booting" or aim.has(m) else m for m in machines}
    while True:
        world = {key: machine for key, machine in world.items() if machine.phase != "doomed"}
        step = plan(fleet, rollout, list(world.values()), now)
        if not step.actions:
            return actions
        rollout = step.rollout
        for action in step.actions:
            actions.append(action)
            if action.minion_id is not None:
                del world[action.minion_id]
            else:
                name = f"new {len(actions)}"
                world[name] = Machine(name, action.generation, "serving", now, now, health="yes")
