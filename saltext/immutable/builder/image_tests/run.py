"""Run the tests of an image: inside tests in the machine that bakes, booted tests on one launched from the image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.finish.secrets import Secret
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.builder.states import state_run
from saltext.immutable.guard import launch
from saltext.immutable.host import Host, tail
from saltext.immutable.machines import images
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine

PKI = "/run/immutable-pki"
"""Path of the bake's key pair inside the machine."""
_TIMED_OUT = 124
"""Exit code of timeout(1) when the time is over."""
_CONSOLE = 15
"""Lines of the console in the message about a machine that did not boot."""

Result = dict[str, Any]
"""``name``, ``phase``, ``recipe``, ``passed``, ``seconds`` and ``message``, which is '' where there is nothing to
report."""


def run_inside(machine: Machine, order: Mapping[str, Any], secret_values: Sequence[Secret]) -> list[Result]:
    """Run the inside tests of a recipe in the machine that bakes it.

    ``order``: the order of `commands.state_layer`, with tests as `bake.image_tests.order` makes it. ``secret_values``
    are redacted in messages.
    """
    tests = {**order["tests"], "trace": [state_run.TRACE, order["minion"]["master"], order["hash_key"]]}
    return run_tests(machine, {**order, "tests": tests}, "inside", secret_values, env=state_run.environment(order))


def test_image(host: Host, order: Mapping[str, Any]) -> list[Result]:
    """Launch a machine from an image as a fleet does, under the recipe's bake_id, and run the booted tests on it.

    The first result is whether the machine boots. ``order``: image, bake_id (`make_key` made its key), minion (its
    config), bridge, subnet, within (seconds), secrets, tests.
    """
    with ExitStack() as undo:
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        workspace = undo.enter_context(host.workspace())
        (host.pki / order["bake_id"]).rename(workspace / "pki")
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        machine = undo.enter_context(machines.temporary(host, _machine(host, workspace, order)))
        booted = boots(host, machine, order)
        if not booted["passed"]:
            return [booted]
        envs = {name: order["tests"][name] for name in ("saltenv", "pillarenv")}
        return [booted, *run_tests(machine, order, "booted", secrets.read(machine, {**order, **envs}))]


def _machine(host: Host, workspace: Path, order: Mapping[str, Any]) -> Machine:
    """Return the description of the machine. `sweep` finds it by its mount of the workspace after a kill."""
    image = images.read(host, order["image"])
    return Machine(
        minion_id=order["bake_id"],
        image=order["image"],
        lower=images.lower(host, order["image"]),
        minion={**order["minion"], "id": order["bake_id"], "pki_dir": PKI},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=image["read_only"],
        writable=tuple(image["policy"]["writable"]),
        binds={PKI: str(workspace / "pki")},
    )


def boots(
    host: Host, machine: Machine, order: Mapping[str, Any], phase: str = "booted", within: float = 120.0
) -> Result:
    """Wait until the machine has booted and its launch phase has ended; return this as a test result.

    ``order``: image, within (seconds of the launch phase), tests. ``within``: seconds until it has booted.
    """
    began, message = time.monotonic(), ""
    try:
        machines.wait_booted(machine, within)
        if images.read(host, order["image"])["policy"].get("at_launch"):
            _wait_launched(machine, order["within"])
    except CommandExecutionError as err:
        message = f"{err}\n{machines.console(host, machine.minion_id, _CONSOLE)}".strip()
    return boot_result(order, phase, began, message)


def boot_result(order: Mapping[str, Any], phase: str, began: float, message: str) -> Result:
    """Return the boot of a machine as a test result. ``began``: as `time.monotonic` gave it."""
    name = "boots" if phase == "booted" else "boots from its disk"
    return {**_result(name, phase, time.monotonic() - began, message), "recipe": order["tests"]["recipe"]}


def _wait_launched(machine: Machine, within: float) -> None:
    """Wait for the end of the launch phase.

    Raise CommandExecutionError if it fails or takes longer than ``within`` seconds.
    """
    deadline = time.monotonic() + within
    while (done := machine.run(["cat", launch.RESULT_PATH])).returncode:
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"the launch phase (at_launch) did not end within {within:.0f} s; let its states wait for less, or "
                "increase bake_within in the recipe"
            )
        time.sleep(0.1)
    found = json.loads(done.stdout)
    if not found["ok"]:
        raise CommandExecutionError(
            f"in the booted machine {launch.explain(found['failed'])}; correct the states of at_launch, and bake again"
        )


def run_tests(
    machine: Machine,
    order: Mapping[str, Any],
    phase: str,
    secret_values: Sequence[Secret],
    env: Mapping[str, str] | None = None,
) -> list[Result]:
    """Run the tests of ``order['tests']`` and return their results. If they cannot be run, that is a failed test."""
    began, tests = time.monotonic(), order["tests"]
    if not tests["tests"]:
        return []
    command = ["timeout", "--kill-after=10", f"{order['within']:.0f}", f"{VENV}/bin/python", "-I"]
    command += ["-m", "saltext.immutable.builder.image_tests.saltcheck"]
    try:
        done = machine.run(command, stdin=json.dumps(tests, default=str), env=env)
    except CommandExecutionError as err:  # the machine ended, perhaps by what it was tested for
        found = [_result("tests", phase, time.monotonic() - began, str(err))]
    else:
        found = _found(done, phase, time.monotonic() - began, order["within"])
    return [
        {**each, "recipe": tests["recipe"], "message": secrets.redact(each["message"], secret_values)} for each in found
    ]


def _found(done: CompletedProcess[str], phase: str, seconds: float, within: float) -> list[Result]:
    if done.returncode == _TIMED_OUT:
        return [_result("tests", phase, seconds, f"they did not end within {within:.0f} s")]
    message = tail(done.stderr, 20) or "saltcheck printed no results"
    return list(_parse(done.stdout, phase)) or [_result("tests", phase, 0.0, message)]


def _parse(output: str, phase: str) -> Iterator[Result]:
    """Yield the results that `saltcheck` printed, none where it did not end well."""
    try:
        found = json.loads(output.splitlines()[-1])
        yield from ({**each, "phase": phase} for each in found)
    except (ValueError, IndexError, TypeError):
        return


def _result(name: str, phase: str, seconds: float, message: str) -> Result:
    """Return a test result; it passed if the message is empty."""
    return {"name": name, "phase": phase, "passed": not message, "seconds": round(seconds, 3), "message": message}
