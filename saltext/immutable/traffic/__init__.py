"""Who sends visitors to the machines of a fleet: one file an adapter; `adapter` says what each can do.

Only the driver and the operators' commands of fleets call an adapter, through `load`; it runs on the master. It must
never import bakes, fleets or the store.
"""

from __future__ import annotations

from saltext.immutable.traffic.adapter import GROUP, Standing, Traffic, load

__all__ = ["GROUP", "Standing", "Traffic", "load"]
