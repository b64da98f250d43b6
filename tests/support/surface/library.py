"""All that the surface is read from: the one file here that imports the library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import saltext.immutable
from saltext.immutable import adoption, providers, spec, traffic
from saltext.immutable.providers import nspawn as _nspawn
from saltext.immutable.runner import Progress
from saltext.immutable.spec.section import Section
from saltext.immutable.store.schema import metadata
from saltext.immutable.traffic.haproxy import HAProxy

PROTOCOLS = (providers.Provider, traffic.Traffic)
"""What third parties implement."""
VALUES = (providers.Identity, providers.Instance, traffic.TrafficStatus)
"""What goes in and comes out there."""
LIBRARY = Path(str(saltext.immutable.__file__)).parent
TABLES = metadata.sorted_tables


def nspawn(settings: Mapping[str, Any]) -> object:
    """Let the provider check its settings, without the keys of a master."""
    return _nspawn.Nspawn.check(settings)


def haproxy(settings: Mapping[str, Any]) -> object:
    """Let the adapter check its settings."""
    return HAProxy(settings, {})


__all__ = ["Progress", "Section", "adoption", "spec"]
"""Besides what is defined here."""
