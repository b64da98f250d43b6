"""The functions of `_modules/machine.py`. Arguments and answers are plain data.

The nspawn provider calls them in the master's process, or as Salt jobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import Host
from saltext.immutable.machines import images
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.machine import Machine

_REQUIRED = {"minion_id", "image", "minion", "bridge", "subnet"}
_OPTIONAL = {"fleet", "generation", "installation", "memory", "cpus", "before"}


def launch(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Start a machine from an image and return its data, as in `list_machines`.

    ``order``: minion_id, image (full digest), minion (its config), bridge, subnet; optional fleet, generation,
    installation, memory (bytes), cpus, and before (epoch seconds): a later launch is refused, because the master does
    not wait for the machine any more. Raises SaltInvocationError for other keys, and CommandExecutionError where the
    image is not on this host or the machine does not start.
    """
    wrong = (_REQUIRED - set(order)) | (set(order) - _REQUIRED - _OPTIONAL)
    if wrong:
        raise SaltInvocationError(f"order: missing or unknown: {', '.join(sorted(wrong))}")
    order = dict(order)
    if (late := time.time() - order.pop("before", math.inf)) > 0:
        raise CommandExecutionError(
            f"the order to launch {order['minion_id']} came {late:.0f} s too late; if this repeats, synchronize the "
            "clocks of master and builder"
        )
    host.prepare()
    lower = images.lower(host, order["image"])
    image = images.read(host, order["image"])
    writable = tuple(image["policy"]["writable"])
    of_image = {"lower": lower, "read_only": image["read_only"], "writable": writable}
    return _as_data(host, machines.launch(host, Machine(**order, **of_image)))


def list_machines(host: Host) -> list[dict[str, Any]]:
    """Return the machines that fleets launched on this host, running or not. Machines that bake are left out."""
    return [_as_data(host, machine) for machine in machines.machines(host) if machine.upper is None]


def destroy(host: Host, minion_id: str) -> bool:
    """Kill a machine and remove all of it but its console log. Return False if there was none."""
    return machines.destroy(host, minion_id)


def console(host: Host, minion_id: str, lines: int = 60) -> str:
    """Return the last ``lines`` lines of a machine's console, also after its end."""
    return machines.console(host, minion_id, lines)


def _as_data(host: Host, machine: Machine) -> dict[str, Any]:
    hidden = ("binds", "boot", "files", "link", "started", "tag", "upper", "writable")
    data = {entry.name: getattr(machine, entry.name) for entry in fields(machine) if entry.name not in hidden}
    return {**data, "running": machines.alive(host, machine), "lower": list(machine.lower)}
