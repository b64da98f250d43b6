"""What the master's event bus says of minions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

POLLED = 300
"""Events that are taken off the bus at a time: on a busy master there are always more."""


@dataclass(frozen=True)
class Event:
    """An event about one minion id. Any minion can send any event, so it is a hint and proves nothing."""

    kind: Literal["started", "denied"]
    """``denied``: a second minion with this id tried to enrol with another key."""
    minion_id: str


def poll(bus: Any) -> list[Event]:
    """Return the events about minions among those (at most `POLLED`) that came since the last call."""
    found = []
    for _ in range(POLLED):
        said = bus.get_event(wait=0, full=True, no_block=True)
        if said is None:
            break
        event = _read(said["tag"], said["data"])
        if event is not None:
            found.append(event)
    return found


def _read(tag: str, data: Any) -> Event | None:
    """Return what an event says of a minion. As a minion may have sent it, its data can be of any shape."""
    words = tag.split("/")
    if len(words) == 4 and words[:2] == ["salt", "minion"] and words[3] == "start":
        return Event("started", words[2])
    if tag == "salt/auth" and isinstance(data, Mapping) and data.get("act") == "denied":
        minion_id = data.get("id")
        return Event("denied", minion_id) if isinstance(minion_id, str) else None
    return None
