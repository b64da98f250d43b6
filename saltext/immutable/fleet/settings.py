"""Check the settings of providers and traffic adapters when the pillar is read, and not in the middle of a rollout."""

from __future__ import annotations

from collections.abc import Iterator

from salt.exceptions import SaltInvocationError

from saltext.immutable import providers, traffic
from saltext.immutable.spec.model import Definitions, Fleet
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
