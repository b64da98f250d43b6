"""Units that went over their limits of memory or tasks. The kernel counts that for as long as the unit runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from saltext.immutable.drift.item import Item

_COUNTS = {
    "memory": ("memory.events", "memory/{}/memory.oom_control", r"^oom_kill (\d+)$"),
    "tasks": ("pids.events", "pids/{}/pids.events", r"^max (\d+)$"),
}
"""Limit to the file of cgroup v2, that of v1, and where the count stands in both (cgroups(7))."""


def drift(
    limits: Mapping[str, Mapping[str, int]],
    groups: Mapping[str, str],
    ended: Collection[str],
    root: str = "/sys/fs/cgroup",
) -> Iterator[Item]:
    """Yield the units that went over a limit.

    ``limits``: unit to its limits by name. ``groups``: unit to its control group, as systemd says it. ``ended``: names
    of units that the kernel ended at their limit of memory.
    """
    for unit, own in limits.items():
        for name, most in own.items():
            times = _times(name, groups.get(unit, ""), root)
            if times or (name == "memory" and unit in ended):
                yield Item("service", unit, f"it went over its limit: {name} {most}")


def _times(name: str, group: str, root: str) -> int:
    """Return how often a group went over a limit; 0 where that is not counted."""
    of_v2, of_v1, count = _COUNTS[name]
    relative = group.strip("/")
    for path in (f"{relative}/{of_v2}", f"unified/{relative}/{of_v2}", of_v1.format(relative)):
        with suppress(OSError), open(f"{root}/{path}", encoding="utf-8") as file:
            if relative and (found := re.search(count, file.read(), re.MULTILINE)):
                return int(found[1])
    return 0


def ended(path: str) -> set[str]:
    """Return the names of the units in a file of one name a line."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return set(file.read().split())
    return set()
