"""On a machine: what is not as its image says."""

from __future__ import annotations

from saltext.immutable.drift.baseline import baseline
from saltext.immutable.drift.check import check
from saltext.immutable.drift.preview import preview

__all__ = ["baseline", "check", "preview"]
