"""Rollouts of real machines behind a real HAProxy, steered by other salt-run processes, while visitors come and go."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.estate import wait_for
from support.slices import full
from support.stage import Stage, staged

REAL = full("rolls real machines behind HAProxy", minutes=1)


@pytest.fixture(scope="module")
def stage(estate, tmp_path_factory) -> Iterator[Stage]:
    """Three machines at version 1 that have visitors, and an image of version 2 that nobody runs yet."""
    with staged(estate, tmp_path_factory.mktemp("stage")) as found:
        yield found


def kinds(timeline) -> Counter[str]:
    return Counter(entry["what"] for entry in timeline)


def test_a_roll_is_paused_resumed_and_approved_by_others_and_taken_back_by_the_traffic_alone(estate, stage):
    stage.strategy(max_surge=3, steps=[1, "100%"], approve=True, keep_old="1h")
    with stage.watched() as visitors:
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("ready", after=began)
        paused = estate.salt_run("fleet.pause", "web", "reason='lunch'").data
        assert paused["outcome"] == "paused" and "lunch" in paused["reason"]
        code, said = stage.ended(roll)
        assert code == 1 and "fleet.resume" in said
        refused = estate.salt_run("fleet.roll", "web", check=False)
        assert refused.returncode == 1 and "paused" in refused.stdout + refused.stderr

        resume = stage.begin("fleet.resume", "web")
        stage.wait_until("fleet.approve")
        old, new = sorted(set(stage.generations().values()))
        assert Counter(stage.generations().values()) == {old: 2, new: 1}
        estate.salt_run("fleet.approve", "web", "reason='looks well'")
        code, said = stage.ended(resume)
        assert code == 0, said
        stage.is_sound(kept=3)
        assert set(stage.generations().values()) == {new}

        back = estate.salt_run("fleet.rollback", "web").data
        assert back["outcome"] == "done" and kinds(back["timeline"])["launch"] == 0
        assert kinds(back["timeline"])["attach"] == 3
        stage.is_sound()
        assert set(stage.generations().values()) == {old}
    assert set(map(str.strip, visitors.seen)) == {"1", "2"}


@REAL
def test_a_roll_is_taken_back_midway_by_another(estate, stage):
    stage.strategy(steps=[1, "100%"], approve=True)
    [old] = set(stage.generations().values())
    with stage.watched():
        roll = stage.begin("fleet.roll", "web")
        stage.wait_until("fleet.approve")
        back = estate.salt_run("fleet.rollback", "web", "reason='a bad feeling'").data
        assert (back["outcome"], set(stage.generations().values())) == ("rolled back", {old})
        code, said = stage.ended(roll)
        assert code == 1 and "a bad feeling" in said
        stage.is_sound()


@REAL
def test_a_roll_is_aborted_by_another_and_the_fleet_stays_mixed(estate, stage):
    stage.strategy(steps=[1, "100%"])
    [old] = set(stage.generations().values())
    with stage.watched():
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("step", after=began)
        stage.wait_for_entry("launched", after=stage.now())
        assert estate.salt_run("fleet.abort", "web", "reason='enough'").data["outcome"] == "aborted"
        code, said = stage.ended(roll)
        assert code == 1 and "enough" in said
        stage.is_sound()
        assert len(found := set(stage.generations().values())) == 2 and old in found
        stage.strategy(max_surge=3)
        assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
        stage.is_sound()


@REAL
def test_a_fleet_is_scaled_and_one_machine_is_replaced(estate, stage):
    with stage.watched():
        before = set(stage.generations())
        assert estate.salt_run("fleet.scale", "web", "4").data["size"] == 4
        stage.is_sound(4)
        assert before < set(stage.generations())
        victim = min(before)
        assert estate.salt_run("fleet.replace", victim, "reason='noisy'").data["outcome"] == "done"
        stage.is_sound(4)
        assert victim not in stage.generations()
        assert len(before & set(stage.generations())) == 2
        estate.salt_run("fleet.scale", "web", "3")
        stage.is_sound()


@REAL
def test_a_reload_of_haproxy_forgets_the_machines_and_reconcile_puts_them_back(estate, stage):
    stage.balancer.reload()
    assert stage.balancer.servers() == []
    estate.salt_run("fleet.reconcile", "web")
    wait_for(lambda: len(stage.balancer.visited()) == 3, 30)
    stage.is_sound()


@REAL
def test_blue_green_gives_the_traffic_back_when_a_newcomer_falls_ill_after_the_switch(estate, stage, inside):
    before = stage.generations()
    stage.bake_another()
    stage.strategy(blue_green=True, soak="10m", unhealthy_for="2s")
    with stage.watched(floor=2):  # one falls ill while it has visitors
        began = stage.now()
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("switch", after=began)
        stage.wait_until("soak")
        assert len(stage.balancer.visited()) == 3 and not set(before) & set(stage.generations())
        newcomer = min(set(stage.generations()) - set(before))
        fell = stage.now()
        inside(newcomer, "systemctl stop nginx")
        stage.wait_for_entry("back", after=fell)
        code, said = stage.ended(roll)
        assert code == 1 and "rolled back" in said
        launched = [what for _, what, _ in stage.entries(fell) if what == "launch"]
        assert launched == [] and stage.generations() == before
        stage.is_sound()


@REAL
def test_a_store_that_was_put_back_or_lost_takes_nobody_from_the_visitors(estate, stage):
    """As a backup that is put back, before a roll and from its middle; and a store of which nothing is left."""
    stage.strategy(max_surge=1)
    store = estate.host.root / "store.sqlite"
    before = copied(store, "before")
    stage.bake_another()
    began = stage.now()
    with stage.watched():
        roll = stage.begin("fleet.roll", "web")
        stage.wait_for_entry("attach", after=began)
        midway = copied(store, "midway")
        assert stage.ended(roll)[0] == 0
        for backup in (midway, before, midway):
            running = set(stage.generations())
            put_back(backup, store)
            assert "older than the machines" in stage.status["warnings"][0]
            estate.salt_run("fleet.reconcile", "web", check=False)
            assert running <= {machine["minion_id"] for machine in stage.status["machines"]}
            assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
            stage.is_sound()
        running = set(stage.generations())
        for file in store.parent.glob("store.sqlite*"):
            file.unlink()
        assert "was lost" in stage.status["warnings"][0]
        refused = estate.salt_run("fleet.rebuild", "web", check=False)  # before it bakes
        assert refused.returncode == 1 and "fleet.adopt_store" in refused.stdout + refused.stderr
        assert estate.salt_run("fleet.adopt_store", "test=True").data["fleets"]["web"] == sorted(running)
        adopted = estate.salt_run("fleet.adopt_store").data
        assert adopted["fleets"]["web"] == sorted(running)
        assert adopted["images"] and all(one["written"] for one in adopted["images"])
        assert "web:stable" in adopted["channels"]
        assert stage.status["warnings"] == [] and set(stage.generations()) == running
        assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
        assert set(stage.generations()) == running, "they run that image already; nothing was baked"
        victim = min(running)
        assert estate.salt_run("fleet.replace", victim, "reason='it looks odd'").data["outcome"] == "done"
        assert running - set(stage.generations()) == {victim}
        stage.is_sound()


def copied(store: Path, name: str) -> Path:
    """Make a backup of a store in use, and return its file."""
    target = store.with_name(f"{name}.backup")
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(target)) as backup:
        source.backup(backup)
    return target


def put_back(backup: Path, store: Path) -> None:
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(store)) as target:
        source.backup(target)
