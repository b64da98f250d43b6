"""The database of the master: images, channels, generations, rollouts, the journal, machines and leases.

Bakes and fleets call it, on the master, as the master's user. `fleet.books` writes the tables of fleets; here they are
only read, to know which images are in use. It must never import bakes, fleets, builders or machines.
"""

from __future__ import annotations

from saltext.immutable.store.database import StoreUnusable
from saltext.immutable.store.leases import Fenced, Held, Holder, Lease
from saltext.immutable.store.store import Image, Store

__all__ = ["Fenced", "Held", "Holder", "Image", "Lease", "Store", "StoreUnusable"]
