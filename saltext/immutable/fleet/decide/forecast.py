"""All actions of a rollout, if everything goes well. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Action, Machine, Phase, Rollout
from saltext.immutable.fleet.decide.steps import goal
from saltext.immutable.spec.model import Fleet

APPROVED = 1_000_000


def forecast(
    fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], now: float
) -> tuple[list[Action], str | None]:
    """Return every action up to the end, and what the rollout would wait for in vain, None if it ends.

    Every machine is taken to be well, windows to be open and everything to be approved. Time passes where the plan
    waits for it. A machine that would be launched is called ``new 1``, ``new 2`` ...
    """
    actions: list[Action] = []
    rollout, aim = replace(rollout, approved=APPROVED), goal(fleet, rollout)
    world = {m.minion_id: _well(m) if m.phase != "booting" or aim.has(m) else m for m in machines}
    fresh = (f"new {number}" for number in count(1))
    while True:
        world = {key: machine for key, machine in world.items() if machine.phase != "doomed"}
        step = plan(fleet, rollout, list(world.values()), UNLIMITED, now)
        rollout = step.rollout
        for action in step.actions:
            actions.append(action)
            _happen(fleet, world, action, next(fresh) if action.kind == "launch" else "", now)
        if rollout.outcome or step.wake is None:
            return actions, None
        if not step.actions:
            if step.wake >= rollout.progress_at + fleet.strategy.progress_within:
                return actions, rollout.verdict  # only time could change it
            now = step.wake


def _well(machine: Machine) -> Machine:
    if machine.phase == "doomed":
        return machine
    phase: Phase = "serving" if machine.phase == "booting" else machine.phase
    return replace(machine, phase=phase, health="yes", attached=True, sessions=0)


def _happen(fleet: Fleet, world: dict[str, Machine], action: Action, name: str, now: float) -> None:
    if action.minion_id is None:
        phase: Phase = "standby" if fleet.traffic else "serving"
        world[name] = Machine(name, action.generation, phase, now, now, "yes", ready_since=now, healthy_since=now)
    elif action.kind == "destroy":
        del world[action.minion_id]
    else:
        after: dict[str, dict[str, Any]] = {
            "attach": {"phase": "serving", "kept_until": None},
            "drain": {"phase": "draining", "drain_since": now, "sessions": 0},
            "keep": {"phase": "standby", "kept_until": action.until},
        }
        world[action.minion_id] = replace(world[action.minion_id], **after[action.kind])
