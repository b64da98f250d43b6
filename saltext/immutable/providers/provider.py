"""What every provider can do, and how one is found.

Third parties add theirs through the entry point group ``saltext.immutable.providers``; its name is what
the pillar's ``provider: {name: ...}`` says, its object is called with ``(settings, opts)``: the fleet's
provider settings (a mapping that the provider checks itself) and the master's opts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from salt.exceptions import SaltInvocationError

GROUP = "saltext.immutable.providers"


@dataclass(frozen=True)
class Identity:
    """Who a new machine is. All of it is tagged on the machine in the call that creates it."""

    minion_id: str
    fleet: str
    generation: int
    installation: str


@dataclass(frozen=True)
class Instance:
    """One machine as its provider sees it."""

    ref: str
    """The provider's own name for it."""
    minion_id: str
    fleet: str
    generation: int
    image: str
    """Full digest of the image it was launched from."""
    running: bool
    """False: it is there (it occupies a place, it must be destroyed) but it has stopped or crashed."""
    address: str | None
    born: float
    """Seconds since the epoch."""
    installation: str
    """Whose it is, as it was tagged; '' where nothing says so."""


class Provider(Protocol):
    """What every provider can do. Errors are ``CommandExecutionError``; each call may be repeated."""

    settles: float
    """Seconds for which a machine must be absent from ``list`` before it is gone."""
    concurrency: int
    """Calls that may be under way at once."""

    def publish(self, image: str) -> str:
        """Make the image (full digest) launchable and return the reference to launch; idempotent."""

    def launch(self, published: str, identity: Identity) -> str:
        """Start a machine and return its ref; idempotent by minion id."""

    def list(self, fleet: str | None = None) -> list[Instance]:
        """Return all machines (of ``fleet``), complete, or raise; those of other installations may be among them."""

    def destroy(self, ref: str) -> None:
        """Ask for the end of a machine; an absent one is no error."""

    def console(self, ref: str) -> str:
        """Return the tail of what the machine wrote to its console, also after its end; '' if unknown."""


def load(name: str, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> Provider:
    """Return the provider that the pillar calls ``name``, its settings checked."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise SaltInvocationError(
            f"provider {name!r} is not installed; known here: {', '.join(sorted(found)) or 'none'}"
        )
    provider: Provider = found[name].load()(settings, opts)
    return provider
