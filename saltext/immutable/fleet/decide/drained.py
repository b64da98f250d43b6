"""Decide about drained machines: which are kept for a rollback, and which, drained or kept, are destroyed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from saltext.immutable.fleet.decide.moment import Moment, act
from saltext.immutable.fleet.decide.state import Action, Machine


def drained(moment: Moment, surplus: Sequence[Machine]) -> Iterator[Action]:
    """Destroy drained machines, or keep them for a rollback."""
    if moment.aim.switch and moment.rollout.switched_at is not None and not moment.soaked:
        return  # the rollout goes back: they serve again
    kept_for = moment.fleet.strategy.keep_old
    forward = moment.rollout.kind == "roll" and moment.rollout.direction == "forward"
    room = moment.aim.size - len(moment.found.kept) - moment.found.doomed if kept_for and forward else 0
    for machine in (*moment.found.draining, *(m for m in surplus if m.phase == "draining")):
        worthy = machine.generation == moment.rollout.source and machine.taint is None and machine.health != "no"
        if not is_drained(moment, machine):
            continue
        if worthy and room > 0:
            room -= 1
            reason = f"drained, and kept for {kept_for:g} s, so that a rollback is quick"
            yield replace(act("keep", machine, reason), until=moment.now + kept_for)
        else:
            yield act("destroy", machine, "drained" if machine.sessions == 0 else "it was not drained in time")


def is_drained(moment: Moment, machine: Machine) -> bool:
    """Tell whether a draining machine has no sessions any more, or had all its time to end them."""
    overdue = machine.drain_since is not None and moment.now >= machine.drain_since + moment.fleet.strategy.drain_within
    return machine.sessions == 0 or overdue


def expired(moment: Moment, attached: Sequence[Action]) -> Iterator[Action]:
    """Destroy kept machines whose time is over, or that no rollback can use."""
    back_again = {action.minion_id for action in attached}
    ways, room = {moment.rollout.source, moment.rollout.target}, moment.aim.size
    # Whether an older generation could be rolled back to is not known here.
    stays = moment.aim.mending or len(ways) == 1
    for machine in moment.found.kept:
        if machine.minion_id in back_again or machine.kept_until is None:
            continue
        room -= 1
        if moment.now >= machine.kept_until or moment.aim.size == 0:
            yield act("destroy", machine, "it was kept for a rollback, and its time is over")
        elif room < 0:
            yield act("destroy", machine, f"more are kept than the {moment.aim.size} that are wanted")
        elif machine.taint is not None or machine.health == "no":
            yield act("destroy", machine, "it was kept for a rollback, and is not well")
        elif machine.generation not in ways and not stays:
            yield act("destroy", machine, "it was kept for a rollback that would not use it")
