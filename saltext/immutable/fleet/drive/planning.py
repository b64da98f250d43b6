"""Ask the plan, within what windows and budgets leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from saltext.immutable.fleet.books.budgets import Budget, Need
from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import Limits, Plan, Rollout
from saltext.immutable.fleet.drive.run import Run
from saltext.immutable.fleet.drive.track import NEVER, RETRY
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease

PLAN_EVERY = 5.0
"""Seconds after which a plan is made anew though nothing happened."""


class Planner:
    """The plans of one run. ``windows`` says what may be begun at a time."""

    def __init__(self, windows: Callable[[float], Limits], budget: Budget, lease: Lease) -> None:
        self._windows, self._budget, self._lease = windows, budget, lease
        self._made_from: tuple[Rollout, Fleet, Limits] | None = None
        """What, beside machines, the last plan was made from."""
        self._made_at = self._again_at = -NEVER

    def plan(self, run: Run, now: float) -> Plan:
        """Return the plan; what it would begin is reserved first where budgets are kept.

        Where nothing is new, the plan of a moment ago holds: it said until when.
        """
        machines, limits = run.picture.machines(), self._windows(now)
        made_from = (run.rollout, run.fleet, limits)
        if not run.picture.moved and made_from == self._made_from and self._made_at <= now < self._again_at:
            return Plan((), run.rollout, self._again_at)
        step = plan(run.fleet, run.rollout, machines, limits, now)
        run.picture.moved, self._made_from, self._made_at = False, (step.rollout, run.fleet, limits), now
        self._again_at = min(NEVER if step.wake is None else step.wake, now + PLAN_EVERY)
        need = _need(run, step)
        if not self._budget or need == Need():
            return step
        granted = self._reserve(run, need, now)
        if granted == need:
            return step
        run.picture.moved = True  # the budgets are asked again whether or not anything happens meanwhile
        limits = replace(limits, launches=granted.launches, disruptions=granted.disruptions)
        step = _patient(run.fleet, plan(run.fleet, run.rollout, machines, limits, now), now)
        return replace(step, wake=min(step.wake, run.timers.budget_at) if step.wake is not None else None)

    def _reserve(self, run: Run, need: Need, now: float) -> Need:
        """Return what the budgets grant; where they granted less a moment ago, they are not asked again yet."""
        if now < run.timers.budget_at:
            return Need()
        run.books.reserved = True
        granted = self._budget.reserve(self._lease, need, run.fleet.size, now)
        if granted != need:
            run.timers.budget_at = now + RETRY
        return granted


def _patient(fleet: Fleet, step: Plan, now: float) -> Plan:
    """Hold it against no rollout that other fleets have spent the budgets: that is no lack of progress of its own."""
    patience = fleet.strategy.progress_within / 4
    if step.actions or step.rollout.outcome or now < step.rollout.progress_at + patience:
        return step
    return replace(step, rollout=replace(step.rollout, progress_at=now))


def _need(run: Run, step: Plan) -> Need:
    """Return what a plan takes of the budgets: launches, and healthy serving machines that it takes away."""
    taken = [run.picture.machine(a.minion_id) for a in step.actions if a.minion_id and a.kind in ("drain", "destroy")]
    return Need(
        sum(action.kind == "launch" for action in step.actions),
        sum((machine.phase, machine.fault) == ("serving", None) and machine.health != "no" for machine in taken),
    )
