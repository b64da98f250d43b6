"""The steps of a rollout by the strategy of its fleet, its soak, and the goal in the present step. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saltext.immutable.fleet.decide.capacity import floor, places
from saltext.immutable.fleet.decide.state import MENDING, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet

ALL = (Amount(100, percent=True),)


@dataclass(frozen=True)
class Goal:
    """The goal of a rollout in its present step."""

    generation: int | None
    """The generation of new machines; None: no machine is launched."""
    size: int
    """Machines of the fleet when the rollout is done."""
    wanted: int
    """How many of these must fit the goal at the end of the present step."""
    floor: int
    """Healthy serving machines that must remain."""
    places: int
    """How many machines may exist; kept and doomed ones do not count."""
    stays: int = 0
    """How many machines of the source generation go on serving in the present step."""
    source: int | None = None
    """The source generation, from which lost ones of these are launched."""
    mending: bool = False
    """The rollout repairs: machines of any generation fit."""
    switch: bool = False
    """Blue-green: all traffic moves at once, when all new machines are healthy."""
    stayed: float | None = None
    """Direction ``back``: machines that were born before this stay, tainted or not."""
    youngest_old: float = 0.0
    """Machines that were born before this are replaced: for their age, or because all are."""
    spares: bool = False
    """Protected machines are not replaced: they fit."""

    def has(self, machine: Machine) -> bool:
        """Tell whether a machine fits the goal."""
        if self.stayed is not None and machine.born < self.stayed:
            return machine.generation == self.generation
        right = machine.generation == self.generation or self.mending
        if right and machine.taint is None and machine.born >= self.youngest_old:
            return True
        return self.spares and machine.protect is not None and self.size > 0

    def keeps(self, machine: Machine) -> bool:
        """Tell whether this step needs a machine that does not fit the goal."""
        return self.stays > 0 and machine.generation == self.source and machine.taint is None

    def against(self, machine: Machine) -> str:
        """Return why a machine does not fit the goal."""
        if machine.generation != self.generation and not self.mending:
            wanted = f"generation {self.generation} is wanted" if self.generation else "no machine is wanted"
            return f"generation {machine.generation} goes: {wanted}"
        if machine.taint is not None:
            return f"tainted: {machine.taint}"
        return "it is older than it may be, or everything is replaced"


def goal(fleet: Fleet, rollout: Rollout) -> Goal:
    """Return the goal: the rollout's target, or in direction ``back`` what the fleet had before."""
    strategy, forward = fleet.strategy, rollout.direction == "forward"
    size = fleet.size if rollout.kind != "destroy" else 0
    least = floor(fleet, rollout, size)
    generation, stayed = rollout.target, None
    if rollout.direction == "back":
        generation, size = rollout.source, min(rollout.old_size, size) if rollout.source is not None else 0
        stayed = rollout.started
    switch = strategy.blue_green and forward and rollout.kind == "roll" and rollout.old_size > 0
    all_steps = steps(fleet, rollout)
    wanted = min(size, all_steps[rollout.step].up(size)) if forward and rollout.step < len(all_steps) - 1 else size
    return Goal(
        generation,
        size,
        wanted,
        least,
        places(fleet, size, switch),
        stays=size - wanted,
        source=rollout.source,
        mending=rollout.kind in MENDING,
        switch=switch,
        stayed=stayed,
        youngest_old=_youngest_old(fleet, rollout),
        spares=strategy.protected == "skip" and rollout.kind != "destroy",
    )


def _youngest_old(fleet: Fleet, rollout: Rollout) -> float:
    """Return the time before which a machine must be born to be replaced, whatever its generation."""
    if rollout.kind == "roll" and not fleet.strategy.skip_matching:
        return rollout.started
    aged = rollout.kind in ("roll", "reconcile", "replace") and fleet.max_age is not None
    return rollout.started - fleet.max_age if aged and fleet.max_age is not None else 0.0


def is_quick(fleet: Fleet, rollout: Rollout) -> bool:
    """Tell whether a rollout has no steps and no soak.

    That is so for repairs, for the way back, for a rollback by at most ``fast_rollback`` generations, for the end of a
    fleet, and for a fleet without machines.
    """
    if rollout.old_size == 0:
        return True
    if rollout.kind == "roll":
        return rollout.direction != "forward"
    if rollout.kind != "rollback":
        return True
    if rollout.source is None or rollout.target is None:
        return False
    return 0 <= rollout.source - rollout.target <= fleet.strategy.fast_rollback


def steps(fleet: Fleet, rollout: Rollout) -> tuple[Amount, ...]:
    """Return the steps of this rollout; the last one is all machines."""
    return ALL if is_quick(fleet, rollout) else fleet.strategy.steps or ALL


def soak(fleet: Fleet, rollout: Rollout) -> float:
    """Return the seconds for which the machines of a step must stay healthy."""
    return 0.0 if is_quick(fleet, rollout) else fleet.strategy.soak
