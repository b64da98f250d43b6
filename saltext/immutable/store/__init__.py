"""What is remembered: images, channels, generations, rollouts, the journal, machines and leases.

Bakes and fleets call it, on the master, as the master's user; the tables of fleets are filled by `fleet.books`, and are
only read here to know which images are needed. It must never import bakes, fleets, builders or machines.
"""

from __future__ import annotations

from saltext.immutable.store.database import Unusable
from saltext.immutable.store.leases import Fenced, Held, Holder, Lease
from saltext.immutable.store.store import Image, Store

__all__ = ["Fenced", "Held", "Holder", "Image", "Lease", "Store", "Unusable"]
