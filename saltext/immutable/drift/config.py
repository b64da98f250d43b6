"""The files of the minion's config that change by design, held to what they may say."""

from __future__ import annotations

import os
from collections.abc import Iterator

import salt.utils.yaml

from saltext.immutable.drift.item import Item
from saltext.immutable.guard import seal

SCHEDULE = "/etc/salt/minion.d/_schedule.conf"
"""Salt writes the jobs of its scheduler there, and nothing else."""


def drift(adopted: bool, schedule: str = SCHEDULE, machine: str = seal.MACHINE_PATH) -> Iterator[Item]:
    """Yield what sets more than it may: folders of executors in these files would outrank the guard."""
    if more := _beside_the_schedule(schedule):
        yield Item("file", schedule, f"only the schedule belongs there: {more}")
    if adopted and os.path.lexists(machine) and not os.path.ismount(machine):
        yield Item("file", machine, "no launch wrote it: this machine was adopted")  # one that did, mounts it


def _beside_the_schedule(place: str) -> str:
    try:
        found = salt.utils.yaml.safe_load(seal.read_regular(place))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, salt.utils.yaml.YAMLError) as err:
        return f"it cannot be read ({type(err).__name__})"
    if not isinstance(found, dict):
        return "it holds no mapping" if found is not None else ""
    return ", ".join(sorted(str(key) for key in found if key != "schedule"))
