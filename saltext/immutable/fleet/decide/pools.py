"""The machines of a fleet, sorted in one walk by what the plan may do with them. Pure.

Machines come in any order. Each list that something is chosen from is `by_age`; ``wanted`` and ``old``, which are long,
are not, because the plan orders only those of them that may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from saltext.immutable.fleet.decide.state import AGE, Machine, Rollout
from saltext.immutable.fleet.decide.steps import Goal
from saltext.immutable.spec.model import Fleet, Strategy

FAR = float("inf")


@dataclass
class Pools:
    """Machines by how they fit the goal. Faulty and doomed ones are in no other list."""

    faulty: list[tuple[Machine, str, bool]] = field(default_factory=list)
    """Machines that must be destroyed for a fault: why, and whether it counts as a failure of the rollout."""
    doomed: int = 0
    kept: list[Machine] = field(default_factory=list)
    """Drained, and kept for a rollback."""
    wanted: list[Machine] = field(default_factory=list)
    """All that fit the goal, whatever their phase."""
    booting: list[Machine] = field(default_factory=list)
    standby: list[Machine] = field(default_factory=list)
    """Fit the goal, are ready, and have no traffic."""
    returning: list[Machine] = field(default_factory=list)
    """Fit the goal, and are draining by an intent that no longer applies."""
    refill: list[Machine] = field(default_factory=list)
    """Do not fit the goal, but replace old machines that were lost during a step."""
    idle: list[Machine] = field(default_factory=list)
    """Do not fit the goal, and do not serve."""
    old: list[Machine] = field(default_factory=list)
    """Do not fit the goal, but serve."""
    draining: list[Machine] = field(default_factory=list)
    available: int = 0
    """Serving machines that have been healthy for ``min_ready``."""
    available_new: int = 0
    """Of these, those that fit the goal."""
    green: int = 0
    """Machines that fit the goal and have been healthy for ``min_ready``, with or without traffic."""
    serving: int = 0
    unknown: int = 0
    """Serving machines whose health is unknown."""
    unwell: int = 0
    wake: float = FAR
    """When time alone changes these lists."""

    @property
    def occupying(self) -> int:
        """Return how many places are taken: by all machines except kept and doomed ones."""
        return sum(map(len, (self.wanted, self.refill, self.idle, self.old, self.draining)))


def sort_machines(fleet: Fleet, rollout: Rollout, aim: Goal, machines: Sequence[Machine], now: float) -> Pools:
    """Return the machines of a fleet, sorted by how they fit the goal."""
    found = Pools()
    strategy, wake, well_for = fleet.strategy, FAR, fleet.strategy.min_ready
    has, watched = aim.has, rollout.started
    for machine in machines:
        phase = machine.phase
        if phase == "doomed":
            found.doomed += 1
            continue
        right = has(machine)
        counts = right and machine.born >= watched
        if phase == "booting" or machine.fault is not None or (counts and machine.health != "yes"):
            why, due = _fault(strategy, machine, counts, now)
            if why is not None:
                failed_at = now if machine.fault is not None else machine.since
                blamed = counts and not machine.blameless and _in_watch(strategy, machine, failed_at)
                found.faulty.append((machine, why, blamed))
                continue
            wake = min(wake, due)
        if machine.kept_until is not None and phase == "standby":
            found.kept.append(machine)
            wake = min(wake, machine.kept_until) if machine.kept_until > now else wake
            continue
        healthy = False
        if machine.health == "yes" and phase != "booting":
            since = (machine.since if machine.healthy_since is None else machine.healthy_since) + well_for
            healthy = since <= now
            if not healthy:
                wake = min(wake, since)
        if phase == "serving":
            found.serving += 1
            if healthy and machine.attached:
                found.available += 1
                found.available_new += right
            elif machine.health == "no":
                found.unwell += 1
            elif machine.health == "unknown":
                found.unknown += 1
        elif phase == "draining" and machine.drain_since is not None:
            drained = machine.drain_since + strategy.drain_within
            wake = min(wake, drained) if drained > now else wake
        if right and not (phase == "draining" and machine.health == "no"):
            found.wanted.append(machine)
            found.green += healthy
            if phase != "serving":
                _waiting(found, machine).append(machine)
        elif phase == "serving":
            found.old.append(machine)
        elif phase == "draining":
            found.draining.append(machine)
        else:
            (found.refill if aim.keeps(machine) else found.idle).append(machine)
    found.wake = wake
    return _ordered(found)


def _ordered(found: Pools) -> Pools:
    """Sort the lists from which machines are chosen by their total order."""
    found.faulty.sort(key=lambda one: AGE(one[0]))
    for chosen_from in (found.kept, found.booting, found.standby, found.returning, found.refill, found.idle):
        chosen_from.sort(key=AGE)
    found.draining.sort(key=AGE)
    return found


def _waiting(found: Pools, machine: Machine) -> list[Machine]:
    return {"booting": found.booting, "standby": found.standby}.get(machine.phase, found.returning)


def is_available(fleet: Fleet, machine: Machine, now: float) -> bool:
    """Tell whether a serving machine is one of the available ones."""
    since = machine.since if machine.healthy_since is None else machine.healthy_since
    return machine.health == "yes" and bool(machine.attached) and since + fleet.strategy.min_ready <= now


def _fault(strategy: Strategy, machine: Machine, counts: bool, now: float) -> tuple[str | None, float]:
    """Return why a machine must be destroyed for a fault, or None and the time when that will be so."""
    if machine.fault is not None:
        return machine.fault, FAR
    patience, state = strategy.ready_within, "ready"
    if machine.phase != "booting":
        if not (counts and _in_watch(strategy, machine, machine.since)):
            return None, FAR
        state = "healthy"
        patience = strategy.unhealthy_for if machine.health == "no" else strategy.ready_within
    due = machine.since + patience
    if now < due:
        return None, due
    within = f"not {state} within" if state == "ready" else "not healthy for"
    return f"{within} {patience:g} s: {machine.note or 'it did not answer'}", due


def _in_watch(strategy: Strategy, machine: Machine, at: float) -> bool:
    """Tell whether a failure of a new machine at ``at`` counts against its image; a later one is an ordinary loss."""
    watch = max(strategy.ready_within, strategy.min_ready + strategy.soak)
    return machine.ready_since is None or at < machine.ready_since + watch
