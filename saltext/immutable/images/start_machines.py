"""Start the machines of this host that have stopped, each from a verified image. A program of its own at boot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from saltext.immutable.host import Host
from saltext.immutable.images import verify
from saltext.immutable.machines import host_boot
from saltext.immutable.machines.description import Machine


def start_all(host: Host) -> dict[str, Any]:
    """Start the machines that have stopped; return ``started`` and ``running`` (minion ids), and ``failed`` (reasons).

    A machine is started only if its image is undamaged, and signed by one of the keys that counted at its launch.
    """

    def require(machine: Machine) -> None:
        verify.require(host, machine.image, machine.trusted or None)  # None: launched by an older version of this pack

    return host_boot.start_all(host, require)


if __name__ == "__main__":
    found = start_all(Host(Path(sys.argv[1])))
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["failed"]))
