"""Which health checks can be answered at all by machines that run an image."""

from __future__ import annotations

from salt.exceptions import SaltInvocationError

from saltext.immutable import guard
from saltext.immutable.fleet.world import LOOK_WITHIN
from saltext.immutable.spec.model import Fleet, FunctionCheck, HttpCheck


def require_answers(fleet: Fleet) -> None:
    """Refuse checks that no machine could pass; else one machine after the other would be launched in vain."""
    for number, check in enumerate(fleet.health):
        if why := _hopeless(check):
            raise SaltInvocationError(f"immutable:fleets:{fleet.name}:health:{number}{why}")


def _hopeless(check: FunctionCheck | HttpCheck) -> str | None:
    if isinstance(check, HttpCheck):
        if check.timeout <= LOOK_WITHIN:
            return None
        return f":timeout: {check.timeout:g} s is longer than the {LOOK_WITHIN:g} s of all checks together; write 5s"
    if guard.classify(check.fun, check.args, check.kwargs) != "change":
        return None
    return (
        f": {check.fun} called like this is refused by a machine that runs an image, so that none would ever be "
        "healthy; use a function that only looks, such as service.status, or an http check"
    )
