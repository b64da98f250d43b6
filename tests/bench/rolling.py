"""What a rollout of real machines costs, against starting the same machines bare; and what going back costs."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import salt.config
import yaml

from saltext.immutable.bake import bake
from saltext.immutable.minions import Jobs, Minions, NoAnswer
from saltext.immutable.providers import Identity
from saltext.immutable.providers.nspawn import Nspawn
from tests.support.estate import Estate, wait_for
from tests.support.stage import Stage


def opts_of(estate: Estate) -> dict[str, Any]:
    """Return the master's opts."""
    opts: dict[str, Any] = salt.config.master_config(str(estate.etc / "master"))
    return opts


def three_machines(estate: Estate) -> tuple[float, float]:
    """Roll a new fleet of three, from the command to its end, beside three started bare until their minions answer."""
    estate.salt_run("image.bake", "web")
    rolled = estate.salt_run("fleet.roll", "web")
    estate.salt_run("fleet.destroy", "web")
    return rolled.seconds, _bare_boot(estate, 3)


def ten_machines(estate: Estate) -> tuple[float, float]:
    """Replace all machines of a fleet of ten at once, from the command to its end, beside ten started bare.

    Both beside ten that run already; ours waits for all checks of the ten new ones and lets the ten old ones go.
    """
    with _fleet_of(estate, 10):
        _bake(estate, "1")
        estate.salt_run("fleet.roll", "web")
        _bake(estate, "2")
        rolled = estate.salt_run("fleet.roll", "web")
        assert [entry["what"] for entry in rolled.data["timeline"]].count("gone") == 10
        bare = _bare_boot(estate, 10)
        estate.salt_run("fleet.destroy", "web")
    return rolled.seconds, bare


def back_by_traffic(estate: Estate) -> tuple[float, float]:
    """Roll back to machines that were kept, beside a rollback that has to launch them; both behind HAProxy."""
    with tempfile.TemporaryDirectory() as home, Stage(estate, Path(home), max_surge=3, keep_old="1h") as stage:
        _bake(estate, "1")
        estate.salt_run("fleet.roll", "web")
        _bake(estate, "2")
        estate.salt_run("fleet.roll", "web")
        by_traffic = estate.salt_run("fleet.rollback", "web")
        stage.strategy(max_surge=3)
        estate.salt_run("fleet.roll", "web")
        by_launch = estate.salt_run("fleet.rollback", "web")
        launches = [_launches(answer.data["timeline"]) for answer in (by_traffic, by_launch)]
        assert launches == [0, 3], launches
    return by_traffic.seconds, by_launch.seconds


def _launches(timeline: list[dict[str, Any]]) -> int:
    return [entry["what"] for entry in timeline].count("launch")


def _bake(estate: Estate, version: str) -> None:
    """Bake one of two images; from the second run on both are there already."""
    estate.write_pillar("web", {"web": {"version": version}})
    estate.salt_run("image.bake", "web")


@contextmanager
def _fleet_of(estate: Estate, size: int) -> Iterator[None]:
    """Let the fleet have so many machines, all of which may be replaced at once."""
    pillar = estate.pillar / "immutable.sls"
    before = pillar.read_text()
    definitions = yaml.safe_load(before)
    definitions["immutable"]["fleets"]["web"] |= {
        "size": size,
        "strategy": {"max_surge": size, "ready_within": "5m"},
    }
    try:
        pillar.write_text(yaml.safe_dump(definitions))
        yield
    finally:
        pillar.write_text(before)


def _bare_boot(estate: Estate, count: int) -> float:
    """Return the seconds until machines that only the provider launches answer ``test.ping``."""
    opts = opts_of(estate)
    image = bake.bake("web", opts)["digest"]
    minions, provider = Minions(opts), Nspawn({}, opts)
    names = [f"web-{secrets.token_hex(8)}.example.com" for _ in range(count)]
    try:
        began = time.monotonic()
        for name in names:
            minions.expect(name)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda name: provider.launch(image, Identity(name, "bench", 1, "bench")), names))
            _wait_for_starts(minions, set(names))
            list(pool.map(lambda name: _answers(opts, name), names))
        return time.monotonic() - began
    finally:
        for name in names:
            provider.destroy(name)
            minions.forget(name)
        minions.close()


def _wait_for_starts(minions: Minions, names: set[str]) -> None:
    started: set[str] = set()

    def all_started() -> bool:
        started.update(event.minion_id for event in minions.poll() if event.kind == "started")
        return names <= started

    wait_for(all_started, 300.0, every=0.02)


def _answers(opts: dict[str, Any], name: str) -> None:
    jobs = Jobs(opts)

    def answers() -> bool:
        try:
            return bool(jobs.run(name, "test.ping"))
        except NoAnswer:
            return False

    wait_for(answers)
