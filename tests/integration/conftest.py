"""A private master for the end-to-end tests of each process: its Debian and Salt layers outlive the session, nothing
else does.

What it serves is ``tree/``, a state tree as a team that never heard of images keeps it, and ``pillar/``. IMMUTABLE_HOME
names another folder for it, so that several may be up at a time.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from saltfactories.manager import FactoriesManager  # noqa: E402
from support.estate import wait_for  # noqa: E402
from support.factories import FactoryEstate  # noqa: E402
from support.surface.bus import Listener  # noqa: E402
from support.surface.seen import Onlooker  # noqa: E402

from saltext.immutable.machines import machine as machines  # noqa: E402
from saltext.immutable.machines.cgroup import hierarchies  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say why nothing runs where it cannot."""
    if os.geteuid() != 0:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="bakes images and runs machines: needs root"))


@pytest.fixture(scope="package")
def estate(salt_factories: FactoriesManager) -> Iterator[FactoryEstate]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    home = ROOT / (os.environ.get("IMMUTABLE_HOME", "build/integration") + ("" if worker == "gw0" else f"-{worker}"))
    roots = {"base": [str(home / "states")], "orch": [str(ROOT / "examples/orch")]}
    more = {"pillar": HERE / "pillar", "states": HERE / "tree", "config": {"file_roots": roots}}
    with FactoryEstate(home, salt_factories, **more) as found:
        yield found


@pytest.fixture(scope="package")
def configured(estate: FactoryEstate) -> Callable[..., AbstractContextManager[None]]:
    """Return what kills the master and starts it again with further config, for a while."""
    return estate.configured


@pytest.fixture(scope="package")
def listener(estate: FactoryEstate) -> Iterator[Listener]:
    with Listener(estate.etc / "master", Onlooker()) as found:
        yield found


@pytest.fixture(autouse=True)
def surface(listener: Listener) -> Iterator[None]:
    """Hold what comes by on the event bus to what is written down of the public surface."""
    yield
    listener.catch_up()
    listener.onlooker.end()


@pytest.fixture
def as_delivered(estate: FactoryEstate) -> Iterator[None]:
    """Put pillar and states back to what the files here say, whatever a test makes of them."""
    yield
    for place, source in ((estate.pillar, HERE / "pillar"), (estate.states, HERE / "tree")):
        shutil.rmtree(place)
        shutil.copytree(source, place)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(estate: FactoryEstate) -> Iterator[Callable[[], None]]:
    """Hold every file of tests to it at its end; a test may ask in between as well."""

    def check() -> None:
        with suppress(TimeoutError):  # a runner that the schedule started says "done" before its process has ended
            wait_for(lambda: not any(estate.leaks().values()), 30)
        there = [machine.minion_id for machine in machines.machines(estate.host)]
        assert {kind: count for kind, count in estate.leaks().items() if count} == {}, (estate.keys(), there)
        assert [str(group) for tree in hierarchies() for group in tree.mount.glob(f"*/*{estate.host.tag}*")] == []

    yield check
    check()


@pytest.fixture(scope="package")
def inside(estate: FactoryEstate) -> Callable[[str, str], str]:
    """Return what runs a shell line in a machine and returns what it said."""

    def run(minion_id: str, line: str) -> str:
        machine = machines.find(estate.host, minion_id)
        assert machine is not None, f"{minion_id} is gone"
        done = machine.run(["sh", "-c", line])
        return (done.stdout + done.stderr).strip()

    return run


@pytest.fixture(scope="package")
def booted(estate: FactoryEstate) -> Callable[[str], None]:
    """Return what waits until a machine has booted."""

    def wait(minion_id: str) -> None:
        machine = machines.find(estate.host, minion_id)
        assert machine is not None, f"{minion_id} is gone"
        machines.wait_booted(machine)

    return wait


@pytest.fixture(scope="package")
def fleet_of_one(
    estate: FactoryEstate, inside: Callable[[str, str], str], booted: Callable[[str], None]
) -> Callable[[str], AbstractContextManager[Any]]:
    """Return what rolls a fleet of one machine for a while, and gives what runs a shell line in that machine."""

    @contextmanager
    def rolled(name: str) -> Iterator[Any]:
        try:
            assert estate.salt_run("fleet.roll", name).data["outcome"] == "done"
            [machine] = estate.salt_run("fleet.status", name).data["machines"]
            booted(machine["minion_id"])
            run: Any = lambda line: inside(machine["minion_id"], line)  # noqa: E731
            run.minion_id, run.address = machine["minion_id"], machine["address"]
            yield run
        finally:
            estate.salt_run("fleet.destroy", name)

    return rolled


@pytest.fixture(scope="package")
def web(estate: FactoryEstate) -> dict[str, Any]:
    """The image of recipe ``web``."""
    return dict(estate.salt_run("image.bake", "web").data)
