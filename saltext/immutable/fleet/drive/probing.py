"""When a machine is probed next: how long it is left alone, by its state and by how many machines there are."""

from __future__ import annotations

from saltext.immutable.fleet.decide.state import Health

PROBE_WITHIN = 15.0
"""Seconds for all questions of one probe of a machine."""
# Seconds between two probes of a machine, by its state.
PROBE_SERVING = 5.0
PROBE_REPLACED = 10.0
"""A healthy machine that the rollout will replace: nothing waits for its health."""
PROBE_UNWELL = 2.0
PROBE_STARTED = 0.5
"""Its minion has started; its services may need a moment longer."""
PROBE_SILENT = 5.0
"""Its start event has not come: a probe would probably run into its time-out."""
PROBE_OVERDUE = PROBE_WITHIN + 5.0
"""Seconds after which a running probe is overdue and the health becomes unknown."""

PROBES = 50
"""Probes of healthy machines a second, at most: machines of a large fleet are probed less often."""


def pause(ready: bool, started: bool, health: Health) -> float:
    """Return the seconds until the next probe of a machine. ``started``: the start event of its minion has come."""
    if not ready:
        return PROBE_STARTED if started else PROBE_SILENT
    return PROBE_SERVING if health == "yes" else PROBE_UNWELL


def patience(of_target: bool, machines: int) -> float:
    """Return the shortest time in seconds between two probes of a healthy machine.

    ``of_target``: it is of the generation that the rollout leads to; ``machines``: how many the fleet has.
    """
    return max(0.0 if of_target else PROBE_REPLACED, machines / PROBES)
