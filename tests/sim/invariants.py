"""What must hold for any plan, in arithmetic of its own, and for what our calls do to the visitors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import Action, Limits, Machine, Plan, Rollout
from saltext.immutable.spec.model import Amount, Fleet

if TYPE_CHECKING:
    from .simulated import Simulated

REFUSED = 1.5
"""Seconds after which an order that was not carried out was refused at least once."""
LATELY = 30.0
"""Seconds after which we may be expected to know that a machine has fallen ill."""
MENDS = ("scale", "replace", "reconcile")


def rounded_up(amount: Amount, size: int) -> int:
    return (amount.value * size + 99) // 100 if amount.percent else amount.value


def rounded_down(amount: Amount, size: int) -> int:
    return (amount.value * size) // 100 if amount.percent else amount.value


@dataclass
class Guardian:
    """Watches one simulated world: each plan, and each machine that is taken from its visitors."""

    world: Simulated
    served: dict[tuple[int, float], int] = field(default_factory=dict)
    """How many machines really served when a rollout began, whatever its books say. (A store that went back gives the
    number of a rollout twice.)"""
    ready: set[str] = field(default_factory=set)
    """Machines that were put to work."""
    proven: set[str] = field(default_factory=set)
    """Those of which that is in the books: who was killed before its commit knew it for nobody."""
    serving: set[str] = field(default_factory=set)
    """Those that the last plan saw at work."""
    floors: dict[int, float] = field(default_factory=dict)
    """When each floor held the last time."""
    fleet: Fleet | None = None
    condemned: set[str] = field(default_factory=set)
    """Machines that may go whatever they do: they failed, or nobody knows how they are."""
    doomed: dict[str, float] = field(default_factory=dict)
    """When each machine that goes was first told to."""
    plans: int = 0

    def begin_anew(self) -> None:
        """Forget the floors of rollouts that are no more: the store went back."""
        self.floors.clear()

    def plan(self, fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float) -> Plan:
        """Ask the real plan, and hold it to the rules."""
        step = plan(fleet, rollout, machines, limits, now)
        self.plans += 1
        self.fleet = fleet
        serving = {m.minion_id for m in machines if m.phase == "serving"}
        self.ready |= serving
        self.proven |= serving & self.serving
        self.serving = serving
        if (rollout.id, rollout.started) not in self.served:
            self.served[rollout.id, rollout.started] = sum(self._serves(name) for name in serving)
        case = _Case(fleet, rollout, machines, limits, now, step, self._floor(fleet, rollout))
        self.floors[case.floor] = self.world.now
        self.condemned |= {
            a.minion_id for a in step.actions if a.minion_id and a.kind == "destroy" and case.may_fall(a)
        }
        for action in step.actions:
            if action.minion_id and action.kind in ("destroy", "drain"):
                self.doomed.setdefault(action.minion_id, self.world.now)
        for rule in RULES:
            rule(case)
        return step

    def _floor(self, fleet: Fleet, rollout: Rollout) -> int:
        size = 0 if rollout.kind == "destroy" else fleet.size
        old = max(self.served[rollout.id, rollout.started], rollout.old_size)
        return max(0, min(old, size) - rounded_down(fleet.strategy.max_unavailable, size))

    def _serves(self, name: str, lately: float = 0.0) -> bool:
        """Tell whether visitors are served by a machine, as the world has it."""
        if self.fleet is not None and self.fleet.traffic is not None:
            server = self.world.visitors.servers.get(name)
            if server is None or server.state != "in":
                return False
        return name in self.ready and self.world.is_well(name, lately)

    def taken(self, name: str, how: str) -> None:
        """Hold to the floor what is taken away: what the world itself took down in the last moments is no fault of
        ours, what a process that is no more had asked for cannot be called back, and an order that was right stays one
        though the provider takes its time.
        """
        if self.world.now > self.doomed.get(name, self.world.now) + REFUSED:
            return
        floors = [floor for floor, at in self.floors.items() if at > self.world.now - LATELY]
        if (
            not floors
            or self.world.strays
            or name in self.condemned
            or name not in self.proven
            or not self._serves(name)
        ):
            return
        others = sum(self._serves(other, LATELY) for other in self.world.machines if other != name)
        assert others >= min(floors), f"{how} {name} leaves {others} at work, and the floor is {min(floors)}"


@dataclass
class _Case:
    """One plan, and what it was made from."""

    fleet: Fleet
    rollout: Rollout
    machines: Sequence[Machine]
    limits: Limits
    now: float
    step: Plan
    floor: int

    def __post_init__(self) -> None:
        self.size = 0 if self.rollout.kind == "destroy" else self.fleet.size
        self.by_id = {m.minion_id: m for m in self.machines}
        self.there = {m.minion_id: m for m in self.machines if m.phase != "doomed"}
        self.by_kind: dict[str, list[Action]] = {}
        for action in self.step.actions:
            self.by_kind.setdefault(action.kind, []).append(action)
        self.after = self.step.rollout
        """The rollout as it is from now on."""
        self.is_green = self.fleet.strategy.blue_green and self.rollout.kind == "roll" and self.rollout.old_size > 0
        self.turned = self.after.direction != self.rollout.direction

    def named(self, *kinds: str) -> list[Machine]:
        return [self.by_id[str(a.minion_id)] for kind in kinds for a in self.by_kind.get(kind, ())]

    def counts(self, machine: Machine) -> bool:
        """Tell whether a machine is at work and well, for long enough."""
        since = machine.since if machine.healthy_since is None else machine.healthy_since
        well = machine.health == "yes" and self.now >= since + self.fleet.strategy.min_ready
        return machine.phase == "serving" and machine.fault is None and well and machine.attached is True

    def may_fall(self, action: Action) -> bool:
        """Tell whether a machine is known to be ill, or is a newcomer of which nothing is known for too long."""
        machine = self.by_id[str(action.minion_id)]
        newcomer = machine.born >= self.rollout.started
        given_up = newcomer and self.now >= machine.since + self.fleet.strategy.ready_within
        return machine.fault is not None or machine.health == "no" or (machine.health == "unknown" and given_up)

    def is_kept(self, machine: Machine) -> bool:
        return machine.kept_until is not None and machine.phase == "standby"


def names_its_victims(case: _Case) -> None:
    named = [action.minion_id for action in case.step.actions if action.kind != "launch"]
    assert len(named) == len(set(named)), "each machine is named once"
    assert set(named) <= set(case.there), "who is named is there, and does not go already"
    assert all(action.reason for action in case.step.actions), "each action has a reason"


def keeps_the_floor(case: _Case) -> None:
    out = {m.minion_id: m for m in case.named("drain", "destroy", "keep") if m.phase == "serving"}
    actions = {a.minion_id: a for a in case.step.actions if a.minion_id in out}
    if all(case.may_fall(actions[name]) for name in out):
        return
    left = sum(case.counts(m) for name, m in case.there.items() if name not in out)
    assert left >= case.floor, f"{left} would be left, and the floor is {case.floor}"


def takes_no_more_places_than_allowed(case: _Case) -> None:
    launches = len(case.by_kind.get("launch", ()))
    kept_now = {a.minion_id for a in case.by_kind.get("keep", ())}
    kept = [m for m in case.there.values() if case.is_kept(m)]
    back = {a.minion_id for a in case.by_kind.get("attach", ())} & {m.minion_id for m in kept}
    victims = {a.minion_id for a in case.by_kind.get("destroy", ())}
    apart = ({m.minion_id for m in kept} | kept_now) - back
    gone = len(case.machines) - len(case.there) + len(victims - apart)
    assert not kept_now or len(apart) <= case.size, "no more are kept than are wanted"
    assert not launches or gone + len(apart) <= case.fleet.size, "few are doomed or kept while others come"
    if not launches:
        return
    surge = (
        case.size
        if case.is_green and case.after.direction == "forward"
        else rounded_up(case.fleet.strategy.max_surge, case.size)
    )
    occupying = len(set(case.there) - victims - apart) + launches
    assert occupying <= case.size + surge, f"{occupying} places, {case.size} + {surge} are allowed"


def keeps_to_the_steps(case: _Case) -> None:
    """Newcomers are as many as the step wants; it is passed after its soak, and with approval."""
    strategy, before, after = case.fleet.strategy, case.rollout, case.after
    quick = before.kind in (*MENDS, "destroy") or before.old_size == 0
    if before.kind == "rollback" and before.source is not None and before.target is not None:
        quick = quick or 0 <= before.source - before.target <= strategy.fast_rollback
    if before.direction != "forward" or case.turned:
        return
    if after.step > before.step:
        assert not quick, "mending and quick rollbacks have no steps"
        assert not strategy.approve or before.approved >= after.step, "somebody approved"
        if strategy.soak:
            reached = before.step_reached_at
            assert after.step == before.step + 1, "one soak passes one step"
            assert reached is not None and case.now >= reached + strategy.soak, "it soaked for long enough"
    if quick or not strategy.steps or not case.by_kind.get("launch"):
        return
    wanted = min(case.size, rounded_up(strategy.steps[min(after.step, len(strategy.steps) - 1)], case.size))
    lost = {m.minion_id for m in case.named("destroy")}
    coming = sum(action.generation == before.target for action in case.by_kind["launch"])
    new = [m for m in case.there.values() if m.generation == before.target and m.born >= before.started]
    new = [m for m in new if m.taint is None and m.fault is None and m.minion_id not in lost and not case.is_kept(m)]
    assert not coming or len(new) + coming <= wanted, f"the step wants {wanted}"


def moves_blue_green_at_once(case: _Case) -> None:
    if not case.is_green or case.rollout.direction != "forward":
        return
    if case.after.switched_at is None and case.after.direction == "forward":
        taken = [m for m in (*case.named("drain"), *case.named("destroy")) if m.phase == "serving" and case.counts(m)]
        serving = sum(m.phase == "serving" for m in case.there.values())
        assert not taken or serving - len(taken) >= case.size, "nobody who is wanted goes before the traffic moves"
        assert not [m for m in case.named("attach") if m.phase == "standby" and m.kept_until is None]
    elif case.rollout.switched_at is None and case.after.switched_at is not None:
        spared = [m for m in case.there.values() if m.protect and case.fleet.strategy.protected == "skip"]
        new = [m for m in case.there.values() if m.generation == case.rollout.target and m not in spared]
        ready = [m for m in (*new, *spared) if m.health == "yes"]
        assert len(ready) >= case.size, "all newcomers are healthy before the traffic moves"


def spares_the_protected(case: _Case) -> None:
    if case.rollout.kind == "destroy":
        return
    for machine in case.named("drain", "destroy"):
        well = machine.health == "yes" and machine.fault is None and machine.phase == "serving"
        assert not (well and machine.protect), f"{machine.minion_id} is protected"


def keeps_to_windows_and_budgets(case: _Case) -> None:
    begun = [m for m in case.named("drain", "destroy") if case.counts(m)]
    launches = len(case.by_kind.get("launch", ()))
    by_choice = case.after.direction == "forward" and case.rollout.kind in ("roll", "reconcile")
    if case.limits.closed is not None and by_choice:
        assert not begun, "nobody well is taken out by choice while it is closed"
        assert not (launches and case.rollout.kind == "roll"), "nothing is launched by choice while it is closed"
    if case.limits.launches is not None:
        assert launches <= case.limits.launches, "the budget of launches holds"
    if case.limits.disruptions is not None:
        assert len(begun) <= case.limits.disruptions, "the budget of disruptions holds"


def is_kind_to_visitors(case: _Case) -> None:
    """With traffic, who is at work and well is drained first, and drained until nobody is left or time is over."""
    if case.fleet.traffic is None:
        return
    within = case.fleet.strategy.drain_within
    for action in case.by_kind.get("destroy", ()):
        machine = case.by_id[str(action.minion_id)]
        if case.may_fall(action):
            continue
        assert machine.phase != "serving", f"{machine.minion_id} is drained before it goes"
        if machine.phase == "draining":
            overdue = machine.drain_since is not None and case.now >= machine.drain_since + within
            assert machine.sessions == 0 or overdue, f"{machine.minion_id} still has visitors"


def brings_back_nobody_bad(case: _Case) -> None:
    for machine in case.named("attach"):
        if case.is_kept(machine):
            assert machine.taint is None and machine.fault is None and machine.health == "yes"
    for action in case.by_kind.get("keep", ()):
        machine = case.by_id[str(action.minion_id)]
        assert machine.phase == "draining" and machine.taint is None and machine.fault is None
        assert action.until is not None and action.until > case.now


def bears_no_more_failures_than_allowed(case: _Case) -> None:
    after, limit = case.after, case.fleet.strategy.max_failures
    many = limit.value * max(1, after.replaces) < len(after.failures) * 100 if limit.percent else None
    too_many = many if many is not None else len(after.failures) > limit.value
    if too_many and len(after.failures) > len(case.rollout.failures) and not case.turned:
        assert after.outcome or after.direction in ("hold", "stop"), "too many failures stop a rollout, or turn it"
    if case.turned and after.direction == "back":
        assert case.fleet.strategy.on_failure == "rollback" and case.rollout.kind == "roll"


def ends_in_order(case: _Case) -> None:
    after = case.after
    assert case.step.wake is not None or after.outcome, "silence is impossible"
    if after.outcome:
        assert not case.step.actions, "who has ended does nothing more"
    if after.outcome == "paused":
        assert "`salt-run fleet." in after.reason, "a paused rollout names the command that leaves it"
    if after.outcome in ("aborted", "rolled back"):
        assert after.reason, "it is said why"
    if after.outcome != "done":
        return
    strategy, members = case.fleet.strategy, [m for m in case.there.values() if not case.is_kept(m)]
    spared = [m for m in members if m.protect is not None and strategy.protected == "skip"]
    if case.limits.closed is not None and case.rollout.kind == "reconcile":
        spared = members
    if case.rollout.kind == "reconcile":  # who was ill before may stay so until the next look at the fleet
        spared = [*spared, *(m for m in members if m.born < case.rollout.started and m.health != "yes" and not m.taint)]
    waits = case.limits.closed is not None and case.rollout.kind == "reconcile"
    # Those that were too many, and the tainted, go when a window opens.
    later = [m for m in members if m.taint] if waits else []
    most = len(later) + max(case.size, case.rollout.old_size if waits else 0)
    assert case.size <= len(members) <= most, f"{len(members)} machines, {case.size} are wanted"
    assert all(m.phase == "serving" for m in members), "all of them serve"
    assert all(m.attached for m in members if m not in spared), "all that are well have visitors"
    for machine in members:
        if machine in spared:
            continue
        assert machine.health == "yes" and not machine.taint, f"{machine.minion_id} is well, and as its image says"
        assert case.rollout.kind in MENDS or machine.generation == case.rollout.target, "it is of the wanted generation"


RULES = (
    names_its_victims,
    keeps_the_floor,
    takes_no_more_places_than_allowed,
    keeps_to_the_steps,
    moves_blue_green_at_once,
    spares_the_protected,
    keeps_to_windows_and_budgets,
    is_kind_to_visitors,
    brings_back_nobody_bad,
    bears_no_more_failures_than_allowed,
    ends_in_order,
)
