"""The functions of `_modules/machine.py`. Arguments and answers are plain data.

The nspawn provider calls them in the master's process, or as Salt jobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import Host
from saltext.immutable.machines import damaged_images, host_boot, host_needs, images, user_namespace
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine

_PUBLISH_PORT, _MASTER_PORT = 4505, 4506
"""Salt's defaults."""
_REQUIRED = {"minion_id", "image", "minion", "bridge", "subnet"}
_OPTIONAL = {
    *("fleet", "generation", "installation", "memory", "cpus", "before", "ports", "between", "capabilities", "trusted"),
}


def launch(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Start a machine from an image and return its data, as in `list_machines`.

    ``order``: minion_id, image (full digest), minion (its config), bridge, subnet; optional fleet, generation,
    installation, memory (bytes), cpus, ports (of this host, besides the master's two), between, capabilities and
    trusted (see `Machine`), and before (epoch seconds): a later launch is refused, because the master does not wait
    for the machine any more. Raises SaltInvocationError for other keys, and CommandExecutionError where the image is
    not on this host or the machine does not start.
    """
    wrong = (_REQUIRED - set(order)) | (set(order) - _REQUIRED - _OPTIONAL)
    if wrong:
        raise SaltInvocationError(f"order: missing or unknown: {', '.join(sorted(wrong))}; see machine.launch")
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
    of_image["shares_ids"] = user_namespace.of_image(image)
    minion = order["minion"]
    of_master = [minion.get("publish_port", _PUBLISH_PORT), minion.get("master_port", _MASTER_PORT)]
    order["ports"] = tuple(sorted({*order.get("ports", ()), *of_master}))
    for name in ("capabilities", "trusted"):
        order[name] = tuple(order.get(name, ()))
    host_boot.enable(host)
    return _as_data(host, machines.launch(host, Machine(**order, **of_image)))


_HIDDEN = {
    *("binds", "boot", "boot_id", "emulated", "files", "link", "started", "tag", "trusted", "upper", "vm", "writable")
}
"""What the description of a machine has for its host alone."""
DAMAGED = "what it runs on was damaged, and was set aside"


def list_machines(host: Host) -> list[dict[str, Any]]:
    """Return the machines that fleets launched on this host, running or not. Machines that bake are left out.

    If there are any, enable the unit that starts them when the host boots: an older version of this pack, which had
    none, may have launched them.

    ``ended_with_host``: it has not been started again since the host has booted. ``damaged``: why it must be replaced,
    if a bake set a layer of it aside; else ''.
    """
    found = [machine for machine in machines.machines(host) if machine.upper is None]
    if found:
        host_boot.enable(host)
    return [_as_data(host, machine) for machine in found]


def destroy(host: Host, minion_id: str) -> bool:
    """Kill a machine and remove all of it but its console log. Return False if there was none."""
    return machines.destroy(host, minion_id)


def console(host: Host, minion_id: str, lines: int = 60) -> str:
    """Return the last ``lines`` lines of a machine's console, also after its end."""
    return machines.console(host, minion_id, lines)


def unmet(host: Host, image: str, capabilities: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each thing that an image wants of the kernel of this host, and that is not so.

    The first is about services that machines with these further ``capabilities`` leave out.
    """
    running = images.read(host, image)["policy"].get("running", ())
    return host_needs.unmet(host.l, images.lower(host, image), running, capabilities)


def _as_data(host: Host, machine: Machine) -> dict[str, Any]:
    data = {entry.name: getattr(machine, entry.name) for entry in fields(machine) if entry.name not in _HIDDEN}
    lists = {name: list(data[name] or ()) for name in ("lower", "ports", "capabilities")}
    running = machines.alive(host, machine)
    ended = not running and machine.started and host_boot.is_of_earlier_boot(machine)
    set_aside = damaged_images.list_set_aside(host)
    on_damaged = any(damaged_images.runs_on(folder, machine.lower, machine.born) for folder in set_aside)
    damaged = DAMAGED if on_damaged else ""
    return {**data, **lists, "running": running, "ended_with_host": ended, "damaged": damaged}
