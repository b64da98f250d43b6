"""kill -9 at each commit of a rollout of real machines; a master that is killed, a disk that is full in the middle.

The driver is killed from outside, as soon as the store shows an entry of the journal that it has just committed: what
was to be done after it is begun, or not, or in the middle. Whoever comes next carries on from there.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.estate import run
from support.slices import full
from support.stage import Stage, staged

pytestmark = full("kills who drives real machines, at each commit", minutes=2.5)
ROLL = {"launch", "launched", "ready", "attach", "step", "drain", "keep", "destroy", "gone", "done"}
"""Every kind of commit of a roll that goes well."""
BACK = {"unhealthy", "failed", "back", "attach", "drain", "destroy", "gone", "rolled back"}
"""Of one that goes back; ``switch`` comes before."""
OFTEN = 0.002


@pytest.fixture(scope="module")
def stage(estate, tmp_path_factory) -> Iterator[Stage]:
    """Three machines at version 1 that have visitors, and an image of version 2 that nobody runs yet."""
    with staged(estate, tmp_path_factory.mktemp("crashes")) as found:
        yield found


class Killer:
    """Kill who drives at the first entry of each kind, and let the next one carry on."""

    def __init__(self, stage: Stage, *kinds: str) -> None:
        self._stage = stage
        self._left = set(kinds)
        self._after = stage.now()
        self.met: set[str] = set()
        """What was the last thing that a driver wrote down."""

    def carry(self, driver: subprocess.Popen[str]) -> None:
        """Wait for the end of a rollout, with `fleet.resume` after each kill."""
        while self._strikes(driver) and self._stage.outcome() is None:
            driver = self._stage.begin("fleet.resume", "web")
        self._stage.ended(driver)

    def _strikes(self, driver: subprocess.Popen[str]) -> bool:
        """Kill at the next entry that there was none of yet; tell whether there was one."""
        while driver.poll() is None:
            if new := self._left.intersection(self._said()):
                driver.kill()
                driver.wait()
                self._met(new.union(self._said()[-1:]))
                return True
            time.sleep(OFTEN)
        return False

    def _said(self) -> list[str]:
        return [what for _, what, _ in self._stage.entries(self._after)]

    def _met(self, kinds: set[str]) -> None:
        self._after = self._stage.now()
        self._left -= kinds
        self.met |= kinds


def test_a_roll_that_is_killed_at_each_commit_is_carried_on_and_nothing_is_lost(estate, stage):
    stage.strategy(steps=[1, "100%"], keep_old="1s")
    before = stage.generations()
    with stage.watched():
        killer = Killer(stage, *ROLL)
        killer.carry(stage.begin("fleet.roll", "web"))
        assert killer.met >= ROLL
        assert not set(before) & set(stage.generations())
        assert stage.outcome() == "done"
        estate.salt_run("fleet.reconcile", "web")  # whoever was kept last goes
        stage.is_sound()


def test_a_way_back_from_an_image_that_falls_ill_is_killed_at_each_commit(stage, inside):
    stage.bake_another()
    stage.strategy(blue_green=True, soak="10m", unhealthy_for="2s")
    before = stage.generations()
    with stage.watched(floor=2):  # one falls ill while it has visitors
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("switch", after=began)
        roll.kill()
        soaking = stage.begin("fleet.resume", "web")
        stage.wait_until("soak")
        killer = Killer(stage, *BACK)
        inside(min(set(stage.generations()) - set(before)), "systemctl stop nginx")
        killer.carry(soaking)
        assert killer.met >= BACK
        assert (stage.outcome(), stage.generations()) == ("rolled back", before)
        stage.is_sound()


def test_a_way_back_by_an_operator_that_is_killed_at_each_commit(estate, stage):
    stage.strategy(max_surge=3, keep_old="1h")
    stage.bake_another()
    before = stage.generations()
    estate.salt_run("fleet.roll", "web")
    with stage.watched():
        killer = Killer(stage, "attach", "drain", "destroy", "gone", "done")
        killer.carry(stage.begin("fleet.rollback", "web"))
        assert killer.met >= {"attach", "drain", "destroy", "gone", "done"}
        stage.is_sound()
        assert stage.generations() == before, "by the traffic alone"


def test_a_master_that_is_killed_twice_in_the_middle(stage, configured):
    stage.strategy(ready_within="90s")
    stage.bake_another()
    with stage.watched():
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("launched", after=began)
        with configured(worker_threads=4):
            stage.wait_for_entry("ready", after=began, within=90)
            stage.wait_for_entry("destroy", after=began, within=90)
        code, said = stage.ended(roll, within=240)
        assert code == 0, said
        stage.is_sound()


def test_a_disk_that_is_full_in_the_middle(estate, stage, tmp_path):
    stage.strategy()
    stage.bake_another()
    with small_disk(estate.host.root / "store.sqlite", tmp_path) as disk, stage.watched():
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("launched", after=began)
        fill(disk / "ballast")
        code, said = stage.ended(roll)
        assert code == 1 and "full" in said and "Traceback" not in said, said
        (disk / "ballast").unlink()
        assert estate.salt_run("fleet.resume", "web").data["outcome"] == "done"
        stage.is_sound()


@contextmanager
def small_disk(store: Path, home: Path) -> Iterator[Path]:
    """Let a store be on a disk of its own for a while, through a link."""
    with closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    run("mount", "-t", "tmpfs", "-o", "size=4m", "none", str(home))
    try:
        shutil.move(store, home / store.name)
        store.symlink_to(home / store.name)
        yield home
    finally:
        with closing(sqlite3.connect(store)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.unlink()
        shutil.move(home / store.name, store)
        run("umount", str(home))


def fill(place: Path) -> None:
    """Write until nothing more fits."""
    with place.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass
