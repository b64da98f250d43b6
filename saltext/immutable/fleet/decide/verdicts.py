"""How far a rollout is, what it waits for, and how it ends. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from saltext.immutable.fleet.decide.pools import Pools
from saltext.immutable.fleet.decide.state import AGE, Action, Direction, Limits, Machine, PausedBy, Rollout
from saltext.immutable.fleet.decide.steps import Goal, soak, steps
from saltext.immutable.spec.model import Fleet


def judged(fleet: Fleet, rollout: Rollout, failed: Sequence[Action], idle_since: float, now: float) -> Rollout:
    """Return the rollout with its failures counted: it turns back or holds with too many, and pauses without progress.

    ``idle_since``: since when there was no progress; soak and the wait for an approval do not count.
    """
    strategy = fleet.strategy
    failures = {**rollout.failures, **{str(action.minion_id): now for action in failed}}
    if failed:
        rollout = replace(rollout, failures=failures)
    too_many = strategy.max_failures.exceeded(len(failures), max(1, rollout.replaces))
    if failed and too_many and rollout.direction not in ("hold", "stop"):
        return _turned(fleet, rollout, f"{failed[0].minion_id}: {failed[0].reason}", "hold", now)
    if now >= idle_since + strategy.progress_within:
        why = f"no progress for {strategy.progress_within:g} s: {rollout.verdict}"
        return _turned(fleet, rollout, why, None, now)
    return rollout


def _turned(fleet: Fleet, rollout: Rollout, why: str, otherwise: Direction | None, now: float) -> Rollout:
    """Roll back if the strategy says so and it is possible, else stop."""
    forward = rollout.direction == "forward"
    reason = why if forward else f"{why} (on the way {rollout.direction} because of {rollout.reason})"
    nowhere = rollout.source is None and rollout.old_size > 0  # no good generation, but some machines serve
    if forward and rollout.kind == "roll" and fleet.strategy.on_failure == "rollback" and not nowhere:
        return turned_back(rollout, reason, now)
    if otherwise == "hold":
        return replace(rollout, direction="hold", held_from=rollout.direction, progress_at=now, reason=reason)
    if rollout.direction == "stop":
        return replace(rollout, outcome="aborted", reason=reason, ended=now)
    return paused(replace(rollout, reason=reason), "failure", now)


def turned_back(rollout: Rollout, reason: str, now: float) -> Rollout:
    """Set the direction ``back``."""
    return replace(rollout, direction="back", failures={}, step_reached_at=None, progress_at=now, reason=reason)


def paused(rollout: Rollout, by: PausedBy, now: float) -> Rollout:
    """Stop a rollout; its reason names the commands that continue it."""
    ways = {"resume": "carries on"}
    if by == "failure" and rollout.kind in ("roll", "rollback", "destroy"):
        ways = {rollout.kind: "tries again", **ways}
    if rollout.kind == "roll" and rollout.source is not None:
        ways["rollback"] = "goes back"
    leads = ", ".join(f"`salt-run fleet.{command} {rollout.fleet}` {what}" for command, what in ways.items())
    return replace(rollout, outcome="paused", paused_by=by, reason=f"{rollout.reason}; {leads}", ended=now)


def revived(rollout: Rollout, now: float) -> Rollout:
    """Continue a rollout that was paused or interrupted; failures before the pause do not count."""
    if rollout.outcome is None:
        return replace(rollout, progress_at=now)
    direction = rollout.held_from or "forward" if rollout.direction == "hold" else rollout.direction
    failures = {} if rollout.paused_by == "failure" else rollout.failures
    return replace(
        rollout,
        outcome=None,
        paused_by=None,
        ended=None,
        direction=direction,
        held_from=None,
        failures=failures,
        progress_at=now,
        reason="" if direction == "forward" else rollout.reason,
    )


def ended(fleet: Fleet, rollout: Rollout, aim: Goal, found: Pools, soaked: bool, limits: Limits, now: float) -> Rollout:
    """Return the rollout with its outcome once nothing is left to do."""
    under_way = bool(found.booting or found.standby or found.returning or found.draining or found.idle)
    if rollout.direction == "hold":
        return rollout if found.draining or found.returning else paused(rollout, "failure", now)
    if rollout.direction == "stop":
        return rollout if under_way else replace(rollout, outcome="aborted", ended=now)
    if rollout.direction == "back":
        return _came_back(rollout, aim, found, now)
    by_choice = limits.closed is not None and _waits_for_windows(rollout)
    waits = by_choice and rollout.kind == "reconcile"
    waiting = len(found.old) if waits else 0
    left = len(found.old) - waiting
    right = found.available_new + _left_unhealthy(fleet, rollout, found, now)
    enough = aim.size - waiting <= right and (waits or right <= aim.size)
    if not (under_way or left) and right == len(found.wanted) and enough:
        return replace(rollout, outcome="done", ended=now) if soaked or rollout.kind == "reconcile" else rollout
    if by_choice and rollout.kind == "roll" and not under_way:
        return paused(replace(rollout, reason=str(limits.closed)), "window", now)
    return rollout


def _left_unhealthy(fleet: Fleet, rollout: Rollout, found: Pools, now: float) -> int:
    """Count the unhealthy machines that a reconcile leaves: its next diagnosis decides about them."""
    if rollout.kind != "reconcile":
        return 0
    before = [m for m in found.wanted if m.phase == "serving" and m.born < rollout.started]
    return sum(m.health == "no" or _silent(fleet, m, now) for m in before)


def _silent(fleet: Fleet, machine: Machine, now: float) -> bool:
    """Tell whether a machine does not answer; one whose host has booted is waited for, and replaced otherwise."""
    return machine.health == "unknown" and not machine.blameless and now >= machine.since + fleet.strategy.ready_within


def _came_back(rollout: Rollout, aim: Goal, found: Pools, now: float) -> Rollout:
    """Return the rollout that goes back, as rolled back once only machines of the old generation serve.

    Those that stayed need only serve as before: the old image may fail a check that came with the new one.
    """
    right = [
        m
        for m in found.wanted
        if m.phase == "serving" and m.attached and (m.born < rollout.started or m.health == "yes")
    ]
    others = len(found.old) + len(found.idle) + len(found.draining)
    if others or not len(right) == len(found.wanted) == aim.size:
        return rollout
    return replace(rollout, outcome="rolled back", ended=now)


def _waits_for_windows(rollout: Rollout) -> bool:
    """Tell whether windows apply to this rollout: not if it repairs, or if an operator said ``now``."""
    return rollout.direction == "forward" and rollout.kind in ("roll", "reconcile")


def closed(rollout: Rollout, limits: Limits) -> bool:
    """Tell whether the windows are closed for this rollout."""
    return limits.closed is not None and _waits_for_windows(rollout)


def verdict(fleet: Fleet, rollout: Rollout, aim: Goal, found: Pools, limits: Limits, soaked: bool) -> str:
    """Return in a sentence, without times, how far the rollout is and what it waits for."""
    healthy = f"{found.available_new} of {aim.size} healthy"
    parts = [f"{healthy} on generation {aim.generation}"] if aim.generation else []
    if aim.mending and parts:
        parts = [healthy]
    all_steps = len(steps(fleet, rollout))
    if all_steps > 1 and rollout.direction == "forward":
        parts.append(f"step {rollout.step + 1} of {all_steps} ({aim.wanted})")
    tainted = sum(m.taint is not None for m in found.old)
    counts = {
        "booting": len(found.booting) + sum(m.phase == "booting" for m in found.idle),
        "about to serve": len(found.standby),
        "serving but not healthy": found.unwell,
        "of unknown health": found.unknown,
        "tainted": tainted,
        "of other generations" if not aim.mending else "too old": len(found.old) - tainted,
        "being drained": len(found.draining) + len(found.returning),
        "kept": len(found.kept),
        "going": found.doomed,
    }
    parts += [f"{number} {what}" for what, number in counts.items() if number]
    return ", ".join([*parts, *_waits(fleet, rollout, aim, found, limits, soaked)]) or "no machine is left"


def _waits(fleet: Fleet, rollout: Rollout, aim: Goal, found: Pools, limits: Limits, soaked: bool) -> Iterator[str]:
    if is_patient(fleet, rollout, aim, found, soaked):
        by_hand = rollout.step_reached_at is None or soaked
        asked = f"waits for `salt-run fleet.approve {rollout.fleet}`"
        yield asked if by_hand else f"soaks for {soak(fleet, rollout):g} s"
    if closed(rollout, limits):
        yield str(limits.closed)
    if limits.launches == 0 or limits.disruptions == 0:
        yield "waits for others: the budget is spent"
    if protected := [m for m in found.old if m.protect is not None]:
        first = min(protected, key=AGE).minion_id
        yield f"{len(protected)} protected ({first}: `salt-run fleet.unprotect` removes the protection)"


def is_patient(fleet: Fleet, rollout: Rollout, aim: Goal, found: Pools, soaked: bool) -> bool:
    """Tell whether the rollout waits for the end of a soak, or for an approval."""
    if rollout.direction != "forward":
        return False
    asks = fleet.strategy.approve
    if aim.switch and rollout.switched_at is None:
        return asks and rollout.approved == 0 and found.green >= aim.size
    if rollout.step_reached_at is None:
        return False
    last = rollout.step >= len(steps(fleet, rollout)) - 1
    return not soaked or (asks and not last and rollout.approved <= rollout.step)
