"""Programs of this folder that mount something: each runs in a mount namespace that ends with it.

Whatever ends the program, a kill as well, leaves no mount and no loop device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

import saltext.immutable
from saltext.immutable.host import run
from saltext.immutable.machines.cgroup import Cgroup

_LIBRARY = Path(saltext.immutable.__file__).parents[2]
Apply = Callable[[dict[str, Any]], list[str]]


def call(processes: Cgroup, program: str, order: Mapping[str, Any]) -> list[str]:
    """Run a program on an order, in the cgroup ``processes``; return its warnings.

    Raises CommandExecutionError with what the program says is wrong.
    """
    command = ["unshare", "--mount", "--propagation=private", "--", sys.executable, "-m", program]
    done = run(
        [*processes.start_command(), *command],
        env={"PYTHONPATH": str(_LIBRARY)},
        cwd=Path("/"),  # where the program looks for modules first
        stdin=json.dumps(order),
    )
    said = json.loads(done.stdout.splitlines()[-1])
    if "error" in said:
        raise CommandExecutionError(said["error"])
    return list(said["warnings"])


def main(apply: Apply) -> int:
    """Apply the order on the standard input; print the warnings, or the error, as JSON."""
    try:
        print(json.dumps({"warnings": apply(json.load(sys.stdin))}))
    except CommandExecutionError as err:
        print(json.dumps({"error": str(err)}))
    return 0
