"""What on a machine is not as its image says: files, mounts, services, processes, accounts, logins.

`_modules/immutable.py` calls it on the machine, as root; adoption uses it to look at a machine before it is sealed. It
must never import what the master decides: it finds and names, and replaces nothing.
"""

from __future__ import annotations

from saltext.immutable.drift.baseline import baseline
from saltext.immutable.drift.check import check
from saltext.immutable.drift.preview import preview

__all__ = ["baseline", "check", "preview"]
