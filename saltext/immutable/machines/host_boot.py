"""Machines come back with their host: those that ran when it stopped are started again, by a unit of systemd."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host, run, systemd_here, this_boot, write
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine

log = logging.getLogger(__name__)

PROGRAM = "saltext.immutable.images.start_machines"
UNITS = Path("/etc/systemd/system")
WANTS = UNITS / "multi-user.target.wants"
_UNIT = """\
[Unit]
Description=Start the machines of {root} that ran when this host stopped
Wants=network-online.target
After=network-online.target
RequiresMountsFor="{root}"

[Service]
Type=oneshot
RemainAfterExit=yes
Restart=on-failure
RestartSec=10
ExecStart="{python}" -I -m {program} "{root}"

[Install]
WantedBy=multi-user.target
"""


def start_all(host: Host, require: Callable[[Machine], Any]) -> dict[str, Any]:
    """Start the machines of fleets that have stopped; return ``started``, ``running`` (minion ids) and ``failed``.

    ``require``: raises CommandExecutionError unless the image of a machine is as it was baked. ``failed``: minion id to
    reason; the others are started anyway.
    """
    found: dict[str, Any] = {"started": [], "running": [], "failed": {}}
    for machine in machines.machines(host):
        if machine.upper is not None or machine.binds:
            continue  # it bakes or tests an image, for a command that is no more
        try:
            if not machine.running:
                require(machine)
            if machines.start_again(host, machine.minion_id):
                found["started"].append(machine.minion_id)
            elif machine.running:
                found["running"].append(machine.minion_id)
        except (CommandExecutionError, OSError, ValueError) as err:
            found["failed"][machine.minion_id] = str(err)
    return found


def unit(host: Host) -> Path:
    """Return the file of the unit that starts the machines of this directory."""
    return UNITS / f"immutable-machines-{host.tag}.service"


def is_of_earlier_boot(machine: Machine) -> bool:
    """Tell whether this host has booted since a machine was started last."""
    if machine.boot_id:
        return machine.boot_id != this_boot()
    return machine.born < _booted_at()  # launched by an older version of this pack


def _booted_at() -> float:
    """Return the epoch seconds at which this host booted."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def enable(host: Host) -> None:
    """Write and enable the unit where systemd is pid 1, unless it is there: an operator may have disabled or masked it.

    A host on which that is impossible runs machines anyway. Without root, do nothing.
    """
    file = unit(host)
    if os.geteuid() != 0 or not systemd_here() or os.path.lexists(file):
        return
    names = {"root": host.root.resolve(), "python": sys.executable, "program": PROGRAM}
    escaped = {name: str(value).replace("%", "%%") for name, value in names.items()}
    try:
        WANTS.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(WANTS / file.name):
            (WANTS / file.name).symlink_to(file)
        write(file, _UNIT.format(**escaped))  # last: a kill before it leaves nothing that looks done
        run(["systemctl", "daemon-reload"], check=False)
    except (CommandExecutionError, OSError) as err:
        _warn(f"machines will not be started when this host boots, since {file}: {err}")


@cache
def _warn(message: str) -> None:
    """Log a warning once in a process: lists of machines are asked for every two seconds."""
    log.warning(message)
