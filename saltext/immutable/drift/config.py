"""Files of the minion's config that change by design: check that they set only what they may set."""

from __future__ import annotations

import os
from collections.abc import Iterator

import salt.utils.yaml

from saltext.immutable.drift.item import Item
from saltext.immutable.guard import seal

SCHEDULE = "/etc/salt/minion.d/_schedule.conf"
"""Salt persists the jobs of its scheduler there, and nothing else."""


def drift(adopted: bool, schedule: str = SCHEDULE, machine: str = seal.MACHINE_PATH) -> Iterator[Item]:
    """Yield the files that set more than they may. (``executor_dirs`` in them would come before the guard.)

    ``adopted``: whether this machine was sealed as it ran; ``schedule`` and ``machine``: paths of the two files.
    """
    if problem := _schedule_problem(schedule):
        yield Item("file", schedule, f"it may set nothing but the schedule: {problem}")
    if adopted and os.path.lexists(machine) and not os.path.ismount(machine):  # a launch mounts the file
        yield Item("file", machine, "this machine was adopted, so no launch wrote this file")


def _schedule_problem(path: str) -> str:
    try:
        found = salt.utils.yaml.safe_load(seal.read_regular(path))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, salt.utils.yaml.YAMLError) as err:
        return f"it cannot be read ({type(err).__name__})"
    if not isinstance(found, dict):
        return "it is not a mapping" if found is not None else ""
    return ", ".join(sorted(str(key) for key in found if key != "schedule"))
