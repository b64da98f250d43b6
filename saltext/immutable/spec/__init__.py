"""The pillar and the master's config as checked, frozen data; every error names its path and how to mend it.

Everything above it reads definitions from here; it runs wherever they are needed. It is pure: it must never import
clocks, files, the network or the store.
"""

from __future__ import annotations

from saltext.immutable.spec.config import settings
from saltext.immutable.spec.pillar import definitions
from saltext.immutable.spec.policy import policy

__all__ = ["definitions", "policy", "settings"]
