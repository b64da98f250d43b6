"""Make the plan, within what windows and budgets allow."""

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
"""Seconds after which a plan is made again even if nothing changed."""


class Planner:
    """Makes the plans of one run. ``windows`` returns what may be started at a time."""

    def __init__(self, windows: Callable[[float], Limits], budget: Budget, lease: Lease) -> None:
        self._windows, self._budget, self._lease = windows, budget, lease
        self._made_from: tuple[Rollout, Fleet, Limits] | None = None
        """The input of the last plan, apart from the machines."""
        self._made_at = self._again_at = -NEVER

    def plan(self, run: Run, now: float) -> Plan:
        """Return the plan. If the fleet has budgets, what the plan would start is reserved first.

        If nothing changed, the last plan holds until its own time to wake.
        """
        machines, limits = run.picture.machines(), self._windows(now)
        made_from = (run.rollout, run.fleet, limits)
        if not run.picture.has_changed and made_from == self._made_from and self._made_at <= now < self._again_at:
            return Plan((), run.rollout, self._again_at)
        step = plan(run.fleet, run.rollout, machines, limits, now)
        run.picture.has_changed, self._made_from, self._made_at = False, (step.rollout, run.fleet, limits), now
        self._again_at = min(NEVER if step.wake is None else step.wake, now + PLAN_EVERY)
        need = _need(run, step)
        if not self._budget or need == Need():
            return step
        granted = self._reserve(run, need, now)
        if granted == need:
            return step
        run.picture.has_changed = True  # so that the budgets are asked again even if nothing else changes
        limits = replace(limits, launches=granted.launches, disruptions=granted.disruptions)
        step = _extend_progress(run.fleet, plan(run.fleet, run.rollout, machines, limits, now), now)
        return replace(step, wake=min(step.wake, run.timers.budget_at) if step.wake is not None else None)

    def _reserve(self, run: Run, need: Need, now: float) -> Need:
        """Return what the budgets grant: nothing until ``budget_at``, if they granted less than was needed."""
        if now < run.timers.budget_at:
            return Need()
        run.transaction.reserved = True
        granted = self._budget.reserve(self._lease, need, run.fleet.size, now)
        if granted != need:
            run.timers.budget_at = now + RETRY
        return granted


def _extend_progress(fleet: Fleet, step: Plan, now: float) -> Plan:
    """Count time in which other fleets hold the budgets as progress, so that the rollout does not fail for its lack."""
    patience = fleet.strategy.progress_within / 4
    if step.actions or step.rollout.outcome or now < step.rollout.progress_at + patience:
        return step
    return replace(step, rollout=replace(step.rollout, progress_at=now))


def _need(run: Run, step: Plan) -> Need:
    """Return what a plan needs of the budgets: launches, and removals of healthy serving machines."""
    taken = [run.picture.machine(a.minion_id) for a in step.actions if a.minion_id and a.kind in ("drain", "destroy")]
    return Need(
        sum(action.kind == "launch" for action in step.actions),
        sum((machine.phase, machine.fault) == ("serving", None) and machine.health != "no" for machine in taken),
    )
