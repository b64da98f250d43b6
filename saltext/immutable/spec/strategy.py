"""Read ``strategy`` of a fleet, and refuse settings that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Amount, Fleet, Strategy
from saltext.immutable.spec.section import Section


def strategy(read: Section) -> Strategy:
    """Read the mapping below ``strategy``."""
    ready_within = read.take("ready_within", reading.duration, Strategy.ready_within)
    min_ready = read.take("min_ready", reading.duration_or_zero, Strategy.min_ready)
    drain_within = read.take("drain_within", reading.duration_or_zero, Strategy.drain_within)
    found = Strategy(
        max_surge=read.take("max_surge", reading.amount, Strategy.max_surge),
        max_unavailable=read.take("max_unavailable", reading.amount, Strategy.max_unavailable),
        steps=read.take("steps", _steps, Strategy.steps),
        soak=read.take("soak", reading.duration_or_zero, Strategy.soak),
        approve=read.take("approve", reading.flag, Strategy.approve),
        blue_green=read.take("blue_green", reading.flag, Strategy.blue_green),
        ready_within=ready_within,
        min_ready=min_ready,
        unhealthy_for=read.take("unhealthy_for", reading.duration, Strategy.unhealthy_for),
        progress_within=read.take("progress_within", reading.duration, 2 * ready_within + min_ready + drain_within),
        max_failures=read.take("max_failures", _failures, Strategy.max_failures),
        on_failure=read.take("on_failure", reading.either("rollback", "pause"), Strategy.on_failure),
        drain_within=drain_within,
        keep_old=read.take("keep_old", reading.duration_or_zero, Strategy.keep_old),
        skip_matching=read.take("skip_matching", reading.flag, Strategy.skip_matching),
        protected=read.take("protected", reading.either("wait", "skip"), Strategy.protected),
        fast_rollback=read.take("fast_rollback", reading.count, Strategy.fast_rollback),
    )
    read.close()
    return found


def _steps(value: object) -> tuple[Amount, ...]:
    found = tuple(reading.amount(one) for one in reading.sequence(value))
    if any(one.value == 0 for one in found):
        raise ValueError("a step of 0 machines does nothing; leave it out")
    for one, after in pairwise(found):
        if one.percent == after.percent and one.value >= after.value:
            raise ValueError(f"must ascend, but {after} comes after {one}")
    return found


def _failures(value: object) -> Amount:
    """Read a number of machines, or a percentage: ``25%`` or ``0.25``."""
    if isinstance(value, float) and 0 < value < 1 and round(value, 2) == value:
        return Amount(round(value * 100), percent=True)
    if isinstance(value, float):
        raise ValueError(f"must be a number of machines or a percentage such as 25% or 0.25, not {value}")
    return reading.amount(value)


def conflicts(found: Fleet) -> Iterator[str]:
    """Yield a sentence for each set of settings with which a rollout could not finish, or could stop all service."""
    for check in (_replacement, _outage, _timeouts, _steps_and_traffic):
        yield from check(found)


def _replacement(found: Fleet) -> Iterator[str]:
    limits, size = found.strategy, found.size
    down = limits.max_unavailable.down(size)
    if limits.blue_green:
        return
    if limits.max_surge.value == 0 and limits.max_unavailable.value == 0:
        yield ("max_surge and max_unavailable are both 0, so no machine could ever be replaced; set max_surge to 1")
    elif limits.max_surge.value == 0 and down == 0 and size > 0:
        yield (
            f"max_surge is 0 and max_unavailable {limits.max_unavailable} of {size} rounds down to 0, "
            "so no machine could ever be replaced; set max_unavailable or max_surge to 1"
        )


def _outage(found: Fleet) -> Iterator[str]:
    unavailable = found.strategy.max_unavailable
    if found.size > 0 and unavailable.down(found.size) >= found.size and not found.allow_outage:
        yield (
            f"max_unavailable {unavailable} of {found.size} would let a rollout leave no machine serving; "
            "lower it, or write allow_outage: true in the fleet"
        )


def _timeouts(found: Fleet) -> Iterator[str]:
    limits = found.strategy
    if limits.progress_within < limits.ready_within:
        yield (
            f"progress_within ({limits.progress_within:g} s) is shorter than ready_within "
            f"({limits.ready_within:g} s), so a slow boot that ready_within allows would pause the rollout; "
            "leave it out for twice ready_within"
        )
    for key in ("min_ready", "drain_within") if found.traffic else ("min_ready",):
        if limits.progress_within <= getattr(limits, key):
            yield (
                f"progress_within ({limits.progress_within:g} s) is not longer than {key} "
                f"({getattr(limits, key):g} s), so waiting for that would pause the rollout; make it longer"
            )
    if found.max_age is not None and found.max_age <= limits.progress_within:
        yield (
            f"the fleet's max_age ({found.max_age:g} s) is not longer than progress_within "
            f"({limits.progress_within:g} s), so new machines would be too old before a rollout ends; make it longer"
        )


def _steps_and_traffic(found: Fleet) -> Iterator[str]:
    limits, size = found.strategy, found.size
    if limits.blue_green and limits.steps:
        yield "blue_green switches the traffic at once, so there can be no steps; leave out one of the two"
    if limits.approve and not (limits.steps or limits.blue_green):
        yield "approve waits between steps, but there are no steps; write steps: [1, 100%]"
    if limits.keep_old and found.traffic is None:
        yield "keep_old needs traffic, which takes an old machine out of use; leave it out, or configure traffic"
    if not limits.steps:
        return
    counts = [min(step.up(size), size) for step in limits.steps]
    if counts != sorted(counts):
        yield f"steps must ascend, but {_listed(limits.steps)} of {size} machines are {counts}"
    last = limits.steps[-1]
    if last != Amount(100, percent=True) and (last.percent or last.value < size):
        yield f"the last step must be all machines, not {last}; write [..., 100%]"


def _listed(steps: tuple[Amount, ...]) -> str:
    return f"[{', '.join(map(str, steps))}]"
