"""The pillar and the config as checked, frozen data. Everything here is pure."""

from __future__ import annotations

from saltext.immutable.spec.config import settings
from saltext.immutable.spec.pillar import definitions
from saltext.immutable.spec.policy import policy

__all__ = ["definitions", "policy", "settings"]
