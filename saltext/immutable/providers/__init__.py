"""Providers: how the master launches, lists and destroys machines. One file each; `provider` has the protocol.

The driver of rollouts and the commands of fleets call them, through `load`; they run on the master. They must never
import bakes, fleets or the store: which machines exist is what the provider lists.
"""

from __future__ import annotations

from saltext.immutable.providers.provider import GROUP, Identity, Instance, Provider, check, load, unmet

__all__ = ["GROUP", "Identity", "Instance", "Provider", "check", "load", "unmet"]
