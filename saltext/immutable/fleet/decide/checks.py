"""Find health checks that machines of an image can never pass. Pure."""

from __future__ import annotations

from saltext.immutable.guard import policy
from saltext.immutable.spec.model import Fleet, FunctionCheck, HttpCheck

PROBE_WITHIN = 15.0
"""Seconds for all questions of one probe of a machine."""


def unanswerable(fleet: Fleet) -> str | None:
    """Return what is wrong with a health check that no machine of the fleet could ever pass, or None.

    With such a check one machine after the other would be launched in vain.
    """
    for number, check in enumerate(fleet.health):
        if why := _hopeless(check):
            return f"immutable:fleets:{fleet.name}:health:{number}{why}"
    return None


def _hopeless(check: FunctionCheck | HttpCheck) -> str | None:
    if isinstance(check, HttpCheck):
        if check.timeout <= PROBE_WITHIN:
            return None
        return f":timeout: {check.timeout:g} s is longer than the {PROBE_WITHIN:g} s of all checks together; write 5s"
    if policy.classify(check.fun, check.args, check.kwargs) != "change":
        return None
    return (
        f": {check.fun} called like this is refused by a machine that runs an image, so that none would ever be "
        "healthy; use a function that only looks, such as service.status, or an http check"
    )
