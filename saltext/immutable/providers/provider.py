"""The protocol of providers, and how the one that a pillar names is loaded.

Third parties add a provider through the entry point group ``saltext.immutable.providers``. The name of the entry point
is the one in the pillar's ``provider: {name: ...}``. Its object is called with ``(settings, opts)``: the provider
settings of the fleet (a mapping that the provider checks) and the master's opts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saltext.immutable import plugins

GROUP = "saltext.immutable.providers"


@dataclass(frozen=True)
class Identity:
    """The identity of a new machine. The call that creates the machine must tag it with all of these."""

    minion_id: str
    fleet: str
    generation: int
    installation: str


@dataclass(frozen=True)
class Instance:
    """One machine as its provider lists it."""

    ref: str
    """The provider's name of the machine."""
    minion_id: str
    fleet: str
    generation: int
    image: str
    """Digest, in full, of the image that it was launched from."""
    running: bool
    """False: it exists (it takes resources and must be destroyed), but it has stopped or crashed."""
    address: str | None
    born: float
    """Seconds since the epoch."""
    installation: str
    """The installation of its tag; '' if it has none."""
    restarted: float = 0.0
    """Seconds since the epoch of when it was started again after it had stopped; 0: it never was."""
    ended_with_host: bool = False
    """It does not run because its host has booted, which may start it again."""
    damaged: str | None = None
    """Why it must be replaced, though it runs: what it runs on was damaged; None: it was not."""


class Provider(Protocol):
    """The methods of a provider. Errors are ``CommandExecutionError``; each call may be repeated."""

    settles: float
    """Seconds for which a machine must be missing from ``list`` before it counts as gone."""
    concurrency: int
    """How many calls may run at once."""

    def publish(self, image: str) -> str:
        """Make an image (full digest) launchable, and return the reference for ``launch``; idempotent."""

    def launch(self, published: str, identity: Identity) -> str:
        """Start a machine and return its ref; idempotent by minion id."""

    def list(self, fleet: str | None = None) -> list[Instance]:
        """Return all machines (of ``fleet``); raise if the list is incomplete.

        Machines of other installations may be among them.
        """

    def destroy(self, ref: str) -> None:
        """Request the destruction of a machine; a missing one is no error."""

    def console(self, ref: str) -> str:
        """Return the end of the machine's console output, also after it is destroyed; '' if unknown."""


def unmet(provider: Provider, image: str) -> Sequence[str]:
    """Return what an image (full digest) wants and a provider's hosts do not have: sentences for the operator.

    A provider whose machines share a kernel may have a method ``unmet(image)`` for this.
    """
    asked: Callable[[str], Sequence[str]] = getattr(provider, "unmet", lambda _: ())
    return asked(image)


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ``SaltInvocationError`` if the provider ``name`` is not installed or says that a setting is wrong.

    The object of the entry point may have a method ``check(settings)`` for this; one without is asked by ``load``.
    """
    plugins.check(GROUP, "provider", name, settings)


def load(name: str, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> Provider:
    """Return the provider ``name`` with these settings; raise ``SaltInvocationError`` if one of them is wrong."""
    provider: Provider = plugins.find(GROUP, "provider", name)(settings, opts)
    return provider
