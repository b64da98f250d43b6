"""Events about minions on the master's event bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_EVENTS = 300
"""How many events one ``poll`` takes off the bus: on a busy master there are always more."""
FORGED = "an answer under its id is not signed with its key: ignored"
"""What an operator reads of a forged answer."""


@dataclass(frozen=True)
class Event:
    """An event about one minion id. Any minion can send any event, so it is only a hint."""

    kind: Literal["started", "denied", "forged"]
    """``denied``: a second minion with this id tried to enrol with another key. ``forged``: an answer came under this
    id that its key did not sign."""
    minion_id: str


def poll(bus: Any) -> list[Event]:
    """Return the events about minions that came since the last call; at most `MAX_EVENTS` are taken off the bus."""
    found = []
    for _ in range(MAX_EVENTS):
        raw = bus.get_event(wait=0, full=True, no_block=True)
        if raw is None:
            break
        event = _read(raw["tag"], raw["data"])
        if event is not None:
            found.append(event)
    return found


def _read(tag: str, data: Any) -> Event | None:
    """Return the event about a minion, or None. A minion may have sent it, so its data can have any shape."""
    words = tag.split("/")
    if len(words) == 4 and words[:2] == ["salt", "minion"] and words[3] == "start":
        return Event("started", words[2])
    if tag == "salt/auth" and isinstance(data, Mapping) and data.get("act") == "denied":
        minion_id = data.get("id")
        return Event("denied", minion_id) if isinstance(minion_id, str) else None
    return None
