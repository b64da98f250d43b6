"""Salt on the master: pillar, keys of minions, events, jobs and health checks.

Bakes, fleets and providers call it; it runs on the master, as the master's user. It must never import them, nor the
store: it knows single minions, and neither images nor fleets.
"""

from __future__ import annotations

from saltext.immutable.minions.events import FORGED, Event
from saltext.immutable.minions.health import LaunchFailed
from saltext.immutable.minions.jobs import Jobs
from saltext.immutable.minions.master import machine_config, private_key, public_key
from saltext.immutable.minions.minions import Minions
from saltext.immutable.minions.pillars import definitions, pillar
from saltext.immutable.minions.proven_answers import NoAnswer, Outdated

__all__ = [
    "FORGED",
    "Event",
    "Jobs",
    "LaunchFailed",
    "Minions",
    "NoAnswer",
    "Outdated",
    "definitions",
    "machine_config",
    "pillar",
    "private_key",
    "public_key",
]
