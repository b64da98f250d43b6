"""What a rollout of 10,000 machines costs the master: real driver, plan and store, in a simulated world.

The baseline is a rollout of 1,000 machines, ten times: the cost is to grow with the fleet, and no faster.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LARGE, SMALL = 10_000, 1_000


def cpu(estate: object) -> tuple[float, float]:
    """Return the CPU seconds of a rollout of 10,000 machines; and of ten of 1,000."""
    return _rolled(LARGE)["seconds"], 10 * _rolled(SMALL)["seconds"]


def memory(estate: object) -> tuple[float, float]:
    """Return the megabytes that the process has at most in a rollout of 10,000 machines; and in one of 1,000."""
    return _rolled(LARGE)["megabytes"], _rolled(SMALL)["megabytes"]


def _rolled(size: int) -> dict[str, float]:
    """Roll in a process of its own, and return what that cost."""
    command = [sys.executable, "-m", "tests.bench.simulating", str(size)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def main(size: int) -> None:
    """Roll a simulated fleet from one generation to the next, a tenth at a time; print what the second roll cost."""
    import resource
    import time
    from dataclasses import replace

    from saltext.immutable.spec.model import Amount, Strategy
    from saltext.immutable.store import Store
    from tests.sim.estates import FLEET, Estate
    from tests.sim.simulated import Simulated

    world = Simulated(0)
    world.concurrency = 64
    strategy = Strategy(max_surge=Amount(10, percent=True), ready_within=600.0, progress_within=1800.0)
    fleet = replace(FLEET, size=size, strategy=strategy)
    estate = Estate(world, Store.open("sqlite://", clock=world.clock), fleet, [], lambda entry: None)
    estate.publish("1" * 64)
    estate.operations().roll("web")
    estate.publish("2" * 64)
    began = time.process_time()
    estate.operations().roll("web")
    seconds = time.process_time() - began
    assert estate.running() == ["2" * 64] * size
    print(json.dumps({"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
