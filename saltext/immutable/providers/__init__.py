"""How the master reaches the machines of a fleet: one file a provider; `provider` says what each can do.

Only the driver and the operators' commands of fleets call a provider, through `load`; it runs on the master. It must
never import bakes, fleets or the store: truth about machines is what the provider lists.
"""

from __future__ import annotations

from saltext.immutable.providers.provider import GROUP, Identity, Instance, Provider, load

__all__ = ["GROUP", "Identity", "Instance", "Provider", "load"]
