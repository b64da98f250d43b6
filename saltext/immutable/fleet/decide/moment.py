"""The input of one plan: a fleet, its rollout, its machines in pools, and the time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saltext.immutable.fleet.decide.pools import Pools
from saltext.immutable.fleet.decide.state import Action, Limits, Machine, Rollout
from saltext.immutable.fleet.decide.steps import Goal, soak
from saltext.immutable.fleet.decide.verdicts import is_patient
from saltext.immutable.spec.model import Fleet

FAR = float("inf")


@dataclass(frozen=True)
class Moment:
    """The input of a plan, its machines sorted into pools."""

    fleet: Fleet
    rollout: Rollout
    aim: Goal
    found: Pools
    limits: Limits
    now: float

    @property
    def soaked(self) -> bool:
        """Tell whether enough machines of the step have been healthy for ``min_ready``."""
        reached = self.rollout.step_reached_at
        return reached is not None and self.now >= reached + soak(self.fleet, self.rollout)

    @property
    def idle_since(self) -> float:
        """Return since when the rollout has made no progress; time of a soak does not count."""
        reached = self.rollout.step_reached_at
        return max(self.rollout.progress_at, -FAR if reached is None else reached + soak(self.fleet, self.rollout))

    @property
    def stays(self) -> int:
        """Return how many old machines go on serving in this step."""
        return 0 if self.aim.mending else max(0, self.aim.size - max(self.aim.wanted, len(self.found.wanted)))

    @property
    def patient(self) -> bool:
        """Tell whether the rollout waits for the end of a soak, or for an approval."""
        return is_patient(self.fleet, self.rollout, self.aim, self.found, self.soaked)


def act(kind: Any, machine: Machine, reason: str) -> Action:
    """Return an action on a machine."""
    return Action(kind, machine.generation, reason, machine.minion_id)
