"""What `_modules/machine.py` offers, in plain data: called by the nspawn provider in-process or as a Salt job."""

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

_ORDERED = {"minion_id", "image", "minion", "bridge", "subnet"}
_OPTIONAL = {"fleet", "generation", "installation", "memory", "cpus", "before"}


def launch(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Start a machine from an image; ``order`` has the fields of `machine.Machine` that a caller decides.

    ``before``: epoch seconds after which nobody waits for the machine any more, so that none must come.
    """
    wrong = (_ORDERED - set(order)) | (set(order) - _ORDERED - _OPTIONAL)
    if wrong:
        raise SaltInvocationError(f"order: missing or unknown: {', '.join(sorted(wrong))}")
    order = dict(order)
    if (late := time.time() - order.pop("before", math.inf)) > 0:
        raise CommandExecutionError(
            f"the order to launch {order['minion_id']} came {late:.0f} s too late; if that is always so, the clocks of "
            "master and builder differ"
        )
    host.prepare()
    lower = images.lower(host, order["image"])
    about = images.read(host, order["image"])
    writable = tuple(about["policy"]["writable"])
    of_image = {"lower": lower, "read_only": about["read_only"], "writable": writable}
    return _shown(host, machines.launch(host, Machine(**order, **of_image)))


def list_machines(host: Host) -> list[dict[str, Any]]:
    """Return the machines of this host that fleets ordered, running or not; those that bake are left out."""
    return [_shown(host, machine) for machine in machines.machines(host) if machine.upper is None]


def destroy(host: Host, minion_id: str) -> bool:
    """End a machine and remove all of it but its console log; False if there was none."""
    return machines.destroy(host, minion_id)


def console(host: Host, minion_id: str, lines: int = 60) -> str:
    """Return the tail of a machine's console, also after its end."""
    return machines.console(host, minion_id, lines)


def _shown(host: Host, machine: Machine) -> dict[str, Any]:
    hidden = ("binds", "boot", "files", "link", "started", "tag", "upper", "writable")
    data = {entry.name: getattr(machine, entry.name) for entry in fields(machine) if entry.name not in hidden}
    return {**data, "running": machines.alive(host, machine), "lower": list(machine.lower)}
