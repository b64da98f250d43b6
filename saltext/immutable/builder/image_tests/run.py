"""Tests of an image, run in a machine: in the one that bakes after its states, or in one launched from the image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.finish.secrets import Secret
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.builder.states import salt_call
from saltext.immutable.guard import launch
from saltext.immutable.host import Host, tail
from saltext.immutable.machines import images
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.machine import Machine

PKI = "/run/immutable-pki"
"""Where the machine finds the key of the bake."""
_TIMED_OUT = 124
"""timeout(1)"""
_CONSOLE = 15
"""Lines of the console that say why a machine did not boot."""

Result = dict[str, Any]
"""``name``, ``phase``, ``recipe``, ``passed``, ``seconds``, ``message``: '' where there is nothing to say."""


def inside(machine: Machine, order: Mapping[str, Any], marked: Sequence[Secret]) -> list[Result]:
    """Run the inside tests of a recipe in the machine that bakes it; ``order['tests']``: see `tests.order`."""
    asked = {**order["tests"], "trace": [salt_call.TRACE, order["minion"]["master"], order["hash_key"]]}
    return _run(machine, {**order, "tests": asked}, "inside", marked, env=mirrors.environment())


def test_image(host: Host, order: Mapping[str, Any]) -> list[Result]:
    """Run the booted tests of an image on a machine of it, as a fleet would launch it, under the id that bakes.

    ``order``: image, bake_id (whose key `make_key` made), minion (its config), bridge, subnet, within, secrets, tests.
    """
    with ExitStack() as undo:
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        place = undo.enter_context(host.workspace())
        (host.pki / order["bake_id"]).rename(place / "pki")
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        machine = undo.enter_context(machines.temporary(host, _ordered(host, place, order)))
        boots = _boots(host, machine, images.read(host, order["image"])["policy"], order["within"])
        boots["recipe"] = order["tests"]["recipe"]
        if not boots["passed"]:
            return [boots]
        asked = {**order, **{name: order["tests"][name] for name in ("saltenv", "pillarenv")}}
        return [boots, *_run(machine, order, "booted", secrets.read(machine, asked))]


def _ordered(host: Host, place: Path, order: Mapping[str, Any]) -> Machine:
    """Return the machine; what it has of the workspace is how it is found if the bake is killed."""
    about = images.read(host, order["image"])
    return Machine(
        minion_id=order["bake_id"],
        image=order["image"],
        lower=images.lower(host, order["image"]),
        minion={**order["minion"], "id": order["bake_id"], "pki_dir": PKI},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=about["read_only"],
        writable=tuple(about["policy"]["writable"]),
        binds={PKI: str(place / "pki")},
    )


def _boots(host: Host, machine: Machine, policy: Mapping[str, Any], within: float) -> Result:
    """Wait until the machine has booted and its launch phase is over: the first test of all."""
    began, said = time.monotonic(), ""
    try:
        machines.wait_booted(machine)
        if policy.get("at_launch"):
            _wait_launched(machine, within)
    except CommandExecutionError as err:
        said = f"{err}\n{machines.console(host, machine.minion_id, _CONSOLE)}".strip()
    return _result("boots", "booted", time.monotonic() - began, said)


def _wait_launched(machine: Machine, within: float) -> None:
    """Raise unless the launch phase ends in time, and well."""
    deadline = time.monotonic() + within
    while (done := machine.run(["cat", launch.RESULT_PATH])).returncode:
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"its launch phase did not end within {within:.0f} s")
        time.sleep(0.1)
    found = json.loads(done.stdout)
    if not found["ok"]:
        raise CommandExecutionError(launch.explain(found["failed"]))


def _run(
    machine: Machine,
    order: Mapping[str, Any],
    phase: str,
    marked: Sequence[Secret],
    env: Mapping[str, str] | None = None,
) -> list[Result]:
    """Run the tests of ``order['tests']``; that they could not be run is a test that failed."""
    began, asked = time.monotonic(), order["tests"]
    if not asked["tests"]:
        return []
    words = ["timeout", "--kill-after=10", f"{order['within']:.0f}", f"{VENV}/bin/python", "-I"]
    words += ["-m", "saltext.immutable.builder.image_tests.saltcheck"]
    done = machine.run(words, stdin=json.dumps(asked, default=str), env=env)
    if done.returncode == _TIMED_OUT:
        found = [_result("tests", phase, time.monotonic() - began, f"they did not end within {order['within']:.0f} s")]
    else:
        found = list(_parsed(done.stdout, phase)) or [_result("tests", phase, 0.0, tail(done.stderr, 20) or "no word")]
    return [{**each, "recipe": asked["recipe"], "message": secrets.redact(each["message"], marked)} for each in found]


def _parsed(said: str, phase: str) -> Iterator[Result]:
    try:
        found = json.loads(said.splitlines()[-1])
        yield from ({**each, "phase": phase} for each in found)
    except (ValueError, IndexError, TypeError):
        return


def _result(name: str, phase: str, seconds: float, message: str) -> Result:
    """Return what came of something that failed if there is a message."""
    return {"name": name, "phase": phase, "passed": not message, "seconds": round(seconds, 3), "message": message}
