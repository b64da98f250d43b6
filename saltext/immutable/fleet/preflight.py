"""Check what a fleet's pillar says of providers, traffic and health before a rollout begins, not amid it."""

from __future__ import annotations

from collections.abc import Iterator

from salt.exceptions import SaltInvocationError

from saltext.immutable import providers, traffic
from saltext.immutable.fleet.drive.probing import PROBE_WITHIN
from saltext.immutable.guard import policy
from saltext.immutable.spec.model import Definitions, Fleet, FunctionCheck, HttpCheck
from saltext.immutable.spec.section import refuse
from saltext.immutable.text import shortened


def checked(definitions: Definitions) -> Definitions:
    """Return the definitions; raise ``SaltInvocationError`` with a line for each wrong setting of a fleet."""
    refuse("immutable:fleets", [line for fleet in definitions.fleets.values() for line in _wrong(fleet)])
    return definitions


def _wrong(fleet: Fleet) -> Iterator[str]:
    for check, named in ((providers.check, fleet.provider), (traffic.check, fleet.traffic)):
        if named is None:
            continue
        try:
            check(named.name, named.settings)
        except SaltInvocationError as err:
            yield from (f"immutable:fleets:{fleet.name}:{shortened(line, 300)}" for line in str(err).splitlines())


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
