"""Drift of a machine: what differs from its image. Files, packages, accounts, mounts, services, processes, logins.

It runs on the machine, as root. `_modules/immutable.py` calls it; ``adoption`` uses it to record a machine before it is
sealed. It only reports, and must never import ``fleet`` or ``store``.
"""

from __future__ import annotations

from saltext.immutable.drift.baseline import baseline
from saltext.immutable.drift.check import check
from saltext.immutable.drift.preview import preview

__all__ = ["baseline", "check", "preview"]
