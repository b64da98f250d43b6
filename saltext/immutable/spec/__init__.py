"""Pillar and config as checked, frozen data: recipes, fleets, settings and the policy of an image.

Fleets, bakes and adoption call it, wherever they run. Every error names the path of the value and what to write
instead. It is pure: it must never import clocks, files, the network or the store.
"""

from __future__ import annotations

from saltext.immutable.spec.config import settings
from saltext.immutable.spec.pillar import definitions
from saltext.immutable.spec.policy import policy

__all__ = ["definitions", "policy", "settings"]
