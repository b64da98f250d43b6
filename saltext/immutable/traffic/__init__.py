"""Traffic adapters: attach machines to load balancers, drain and remove them. `adapter` has the protocol.

The driver of rollouts and the commands of fleets call them, through `load`; they run on the master. They must never
import bakes, fleets or the store.
"""

from __future__ import annotations

from saltext.immutable.traffic.adapter import GROUP, Traffic, TrafficStatus, check, load

__all__ = ["GROUP", "TrafficStatus", "Traffic", "check", "load"]
