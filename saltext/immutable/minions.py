"""Salt seen from the master: enrolment, start events, jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from salt.exceptions import CommandExecutionError


class NoAnswer(CommandExecutionError):
    """Nothing could be learned about a machine: neither that it is well nor that it is ill."""


@dataclass(frozen=True)
class Event:
    """Something that Salt's event bus said of one minion id."""

    kind: Literal["started", "intruder"]
    """``intruder``: somebody knocked under that id with another key."""
    minion_id: str
