"""What a rollout is after at the moment: pure, from the fleet's strategy and how far the rollout is."""

from __future__ import annotations

from dataclasses import dataclass

from saltext.immutable.fleet.decide.state import MENDING, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet

ALL = (Amount(100, percent=True),)


@dataclass(frozen=True)
class Goal:
    """What a rollout is after."""

    generation: int | None
    """What new machines are launched from; None: none is launched."""
    size: int
    """Machines in the end."""
    wanted: int
    """How many of them shall fit the goal after the present step."""
    floor: int
    """Healthy serving machines that have to remain."""
    places: int
    """Machines that may exist, the kept and the doomed apart."""
    stays: int = 0
    """How many machines of the source generation serve on during the present step."""
    source: int | None = None
    """The source generation: what lost ones of these are launched from."""
    mending: bool = False
    """Machines of any generation fit."""
    switch: bool = False
    """Blue-green: the traffic moves at once, when all newcomers are healthy."""
    stayed: float | None = None
    """On the way back: what was born before this stays as it is, tainted or not."""
    youngest_old: float = 0.0
    """What was born before this is too old, or is replaced because everything is."""
    spares: bool = False
    """Protected machines are left alone, and fit."""

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
    """Return what the rollout is after: its target, or on the way back what the fleet had before."""
    strategy, forward = fleet.strategy, rollout.direction == "forward"
    size = fleet.size if rollout.kind != "destroy" else 0
    floor = max(0, min(rollout.old_size, size) - strategy.max_unavailable.down(size))
    generation, stayed = rollout.target, None
    if rollout.direction == "back":
        generation, size = rollout.source, min(rollout.old_size, size) if rollout.source is not None else 0
        stayed = rollout.started
    switch = strategy.blue_green and forward and rollout.kind == "roll" and rollout.old_size > 0
    surge = size if switch else strategy.max_surge.up(fleet.size)
    taken = steps(fleet, rollout)
    wanted = min(size, taken[rollout.step].up(size)) if forward and rollout.step < len(taken) - 1 else size
    return Goal(
        generation,
        size,
        wanted,
        floor,
        size + surge,
        stays=size - wanted,
        source=rollout.source,
        mending=rollout.kind in MENDING,
        switch=switch,
        stayed=stayed,
        youngest_old=_youngest_old(fleet, rollout),
        spares=strategy.protected == "skip" and rollout.kind != "destroy",
    )


def _youngest_old(fleet: Fleet, rollout: Rollout) -> float:
    """Return the birth before which a machine is replaced, whatever its generation."""
    if rollout.kind == "roll" and not fleet.strategy.skip_matching:
        return rollout.started
    aged = rollout.kind in ("roll", "reconcile", "replace") and fleet.max_age is not None
    return rollout.started - fleet.max_age if aged and fleet.max_age is not None else 0.0


def is_quick(fleet: Fleet, rollout: Rollout) -> bool:
    """Tell whether it takes no steps and no soak: mending, the way back to what was good not long ago, and where
    nothing serves yet, so that no visitor has anything to lose.
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
    """Return the steps that this rollout takes; the last one is all."""
    return ALL if is_quick(fleet, rollout) else fleet.strategy.steps or ALL


def soak(fleet: Fleet, rollout: Rollout) -> float:
    """Return for how many seconds the machines of a step have to stay healthy."""
    return 0.0 if is_quick(fleet, rollout) else fleet.strategy.soak
