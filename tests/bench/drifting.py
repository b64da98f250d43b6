"""What a look for drift costs on a machine of an image of more than 20,000 files, caches warm, against bare tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from saltext.immutable.machines import commands
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine
from tests.support.estate import Estate

MINION_ID = "bench-drift"
FILES = 20_000
_PYTHON = "/opt/salt/bin/python"
_PEAK = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024"
_LOOK = f"""
import json, resource, sys, time
began = time.perf_counter()
from saltext.immutable import drift
found = drift.check(full="full" in sys.argv)
seconds = time.perf_counter() - began
print(json.dumps({{"seconds": seconds, "memory": {_PEAK}, "files": found["files"], "drift": found["drift"]}}))
"""
_BARE = f"""
import json, resource
print(json.dumps({{"memory": {_PEAK}}}))
"""
_TIMED = """
import json, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1], shell=True, check=True, stdout=subprocess.DEVNULL)
print(json.dumps({"seconds": time.perf_counter() - began}))
"""
_FIND = "find / /var -xdev -printf '%m %U %G %s %T@ %l\\n'"
_HASH = "find / /var -xdev -type f -print0 | xargs -0 sha256sum"


def metadata(estate: Estate) -> tuple[float, float]:
    """Return the seconds of a look at everything, content read only where metadata moved; and of a bare ``find``."""
    with _machine(estate) as machine:
        _ask(machine, _TIMED, _FIND), _look(machine)
        return _look(machine)["seconds"], _ask(machine, _TIMED, _FIND)["seconds"]


def full(estate: Estate) -> tuple[float, float]:
    """Return the seconds of a look that reads every file; and of a bare ``sha256sum`` over them."""
    with _machine(estate) as machine:
        _ask(machine, _TIMED, _HASH)
        return _look(machine, "full")["seconds"], _ask(machine, _TIMED, _HASH)["seconds"]


def memory(estate: Estate) -> tuple[float, float]:
    """Return the megabytes that a process which looks has at most; and of a bare Python."""
    with _machine(estate) as machine:
        return _look(machine)["memory"], _ask(machine, _BARE)["memory"]


@contextmanager
def _machine(estate: Estate) -> Iterator[Machine]:
    digest = estate.salt_run("image.bake", "web").data["digest"]
    place = {"bridge": estate.net.bridge, "subnet": estate.net.subnet}
    try:
        commands.launch(estate.host, {"minion_id": MINION_ID, "image": digest, "minion": {}, **place})
        machine = machines.find(estate.host, MINION_ID)
        assert machine is not None
        machines.wait_booted(machine)
        yield machine
    finally:
        commands.destroy(estate.host, MINION_ID)


def _look(machine: Machine, *words: str) -> Mapping[str, Any]:
    told = _ask(machine, _LOOK, *words)
    assert told["files"] > FILES and told["drift"] == [], told
    return told


def _ask(machine: Machine, code: str, *words: str) -> dict[str, Any]:
    done = machine.run([_PYTHON, "-c", code, *words])
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
