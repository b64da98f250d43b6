"""What never changes in one bake."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import salt.version

from saltext.immutable import __version__, spec
from saltext.immutable.bake.keys.up_to_date import UpToDateCheck
from saltext.immutable.bake.refresh import Refresh, Updates
from saltext.immutable.machines import network
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.store import Store

Builder = Callable[..., Any]
"""Calls a function of the builder by its name, with data that JSON can hold."""
Progress = Callable[..., None]
"""Called with a sentence, the tag of an event and the event's data."""


def silent(message: str, tag: str, **data: Any) -> None:
    """Report no progress."""


def master_address(settings: Settings) -> str:
    """Return the address at which machines reach the master."""
    return settings.master or network.gateway(settings.network)


def machine_network(settings: Settings) -> dict[str, str]:
    """Return the part of a builder's order that names the network of its machines: bridge and subnet."""
    return {"bridge": settings.network.bridge, "subnet": settings.network.subnet}


@dataclass(frozen=True)
class BakeContext:
    """What never changes in one bake. Every step reads it; what a step finds out goes into the `Stack`."""

    opts: Mapping[str, Any]
    """The options of the master, whose state tree and pillar are baked."""
    settings: Settings
    """What the master config says under ``immutable:``."""
    store: Store
    builder: Builder
    chain: tuple[Recipe, ...]
    """The recipe that is baked, last, and the recipes that it is built from, the root first."""
    channel: str = "stable"
    """The channel that will name the image."""
    refresh: Refresh = "never"
    updates: Updates = field(default_factory=Updates)
    """What the mirrors offer, if ``refresh`` asks for it."""
    preview: bool = False
    """Only find out which layers would be built."""
    offline: bool = False
    """The builder may fetch nothing."""
    again: bool = False
    """The states of the recipe, applied a second time, must change nothing."""
    keep_failed: float = 0.0
    """Seconds for which the machine of states that failed is kept."""
    user: str | None = None
    """Who asked for the bake."""
    progress: Progress = silent
    clock: Callable[[], float] = time.time
    """Returns the time in seconds since 1970."""
    up_to_date: UpToDateCheck | None = None
    """The check that was made before the bake read anything."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that is baked."""
        return self.chain[-1]

    def policy(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the policy of machines that run the image: what the recipe and its parents allow there.

        ``given``: that of the image that they are built from.
        """
        return spec.policy(self.chain, given)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Salt and of this pack that bake."""
        return {"salt": salt.version.__version__, "pack": __version__}
