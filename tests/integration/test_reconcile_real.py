"""Upkeep of real machines: one is killed, one falls ill, one is tainted, keys and machines are of nobody, all die."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psutil
import pytest
import yaml
from support.estate import Answer, wait_for
from support.slices import full

from saltext.immutable.machines import host_boot
from saltext.immutable.machines import machine as machines

REAL = full("lets real machines die", minutes=1)
GHOST = "web-00000000000000ff.example.com"
STRANGER = "web-00000000000000ee.example.com"


@pytest.fixture(scope="module", autouse=True)
def fleet(estate, web) -> Iterator[None]:
    """Four machines that may be ill for two seconds, to begin with; nothing at the end."""
    file = estate.pillar / "immutable.sls"
    before = file.read_text()
    pillar = yaml.safe_load(before)
    changes = {"size": 4, "unreachable_for": "2s", "orphan_grace": "2s", "sick_limit": "25%"}
    changes["strategy"] = {"max_surge": 1, "ready_within": "40s"}
    pillar["immutable"]["fleets"] = {"web": {**pillar["immutable"]["fleets"]["web"], **changes}}
    file.write_text(yaml.safe_dump(pillar))
    estate.salt_run("fleet.roll", "web")
    yield
    estate.salt_run("fleet.destroy", "web")
    file.write_text(before)


def ids(estate) -> list[str]:
    return sorted(one["minion_id"] for one in estate.salt_run("fleet.status", "web").data["machines"])


def tended(answer: Answer) -> dict[str, Any]:
    assert answer.data, answer
    return answer.data["fleets"]["web"]


def kill(estate, minion_id: str) -> None:
    """Let a machine die as from a power cut."""
    machine = machines.find(estate.host, minion_id)
    for pid in machine.cgroup.pids():
        with suppress(ProcessLookupError):  # with its first process all others end
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not machines.find(estate.host, minion_id).running, 30)


@contextmanager
def books(estate) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(estate.host.root / "store.sqlite")) as store, store:
        yield store


def test_a_fleet_that_is_well_is_left_alone(estate):
    before = ids(estate)
    told = tended(estate.salt_run("fleet.reconcile", "all"))
    assert (told["did"], told["result"]) == ("nothing", True) and ids(estate) == before


def test_a_machine_that_was_killed_is_replaced_and_its_key_is_gone(estate):
    victim = ids(estate)[1]
    kill(estate, victim)
    dry = tended(estate.salt_run("fleet.reconcile", "web", "test=True"))
    assert dry["did"] == "would mend" and victim in dry["reason"] and victim in ids(estate)
    told = tended(estate.salt_run("fleet.reconcile", "web"))
    assert told["did"] == "mended", told
    assert victim not in ids(estate) and len(ids(estate)) == 4 and estate.keys() == ids(estate)


@REAL
def test_a_machine_whose_service_died_is_replaced_by_a_later_look(estate, inside):
    victim = ids(estate)[2]
    inside(victim, "systemctl stop nginx")
    first = tended(estate.salt_run("fleet.reconcile", "web"))
    assert (first["did"], list(first["sick"])) == ("nothing", [victim])
    wait_for(lambda: tended(estate.salt_run("fleet.reconcile", "web"))["did"] == "mended", 60)
    assert victim not in ids(estate) and len(ids(estate)) == 4
    deeds = [deed["what"] for deed in estate.salt_run("fleet.history", "web").data["deeds"]]
    assert deeds[0] == "tainted"


def test_a_tainted_machine_is_replaced(estate):
    victim = ids(estate)[0]
    estate.salt_run("fleet.taint", victim, "reason=by hand")
    told = tended(estate.salt_run("fleet.reconcile", "web"))
    assert told["did"] == "mended" and f"{victim}: tainted: by hand" in told["reason"]
    assert victim not in ids(estate) and len(ids(estate)) == 4


def launched(estate) -> int:
    with books(estate) as store:
        return store.execute("SELECT count(*) FROM machines WHERE intent = 'launched'").fetchone()[0]


@REAL
def test_a_roll_that_was_killed_is_carried_on(estate):
    victims = ids(estate)[:2]
    for victim in victims:
        estate.salt_run("fleet.taint", victim, "reason=by hand")
    with estate.popen("fleet.roll", "web") as roll:
        wait_for(lambda: launched(estate) > 4, 60)
        roll.kill()
    told = tended(estate.salt_run("fleet.reconcile", "web"))
    assert told["did"] == "carried on", told
    assert not set(victims) & set(ids(estate)) and len(ids(estate)) == 4 and estate.keys() == ids(estate)
    assert estate.salt_run("fleet.history", "web").data["rollouts"][0]["kind"] == "roll"


@REAL
def test_keys_and_machines_of_nobody_are_told_of_and_then_removed(estate):
    victim = ids(estate)[3]
    estate.expect(STRANGER)
    estate.expect(GHOST)
    with books(estate) as store:
        [rollout] = store.execute("SELECT max(id) FROM rollouts").fetchone()
        entry = (rollout, 0.0, "launch", GHOST, "1 of 1")
        store.execute("INSERT INTO journal (rollout, at, what, minion_id, reason) VALUES (?, ?, ?, ?, ?)", entry)
        store.execute("DELETE FROM machines WHERE minion_id = ?", (victim,))
    found = estate.salt_run("fleet.reconcile", "all", "orphans=False", "test=True").data
    assert "orphans" not in found
    seen = {one["minion_id"]: one["done"] for one in collected(estate)}
    assert seen == {GHOST: "reported", STRANGER: "reported", victim: "reported"}
    assert victim in [one.minion_id for one in machines.machines(estate.host)]
    wait_for(lambda: "removed" in {one["done"] for one in collected(estate)}, 30)
    keys = estate.keys()
    assert STRANGER in keys and GHOST not in keys and victim not in keys
    (estate.pki / "minions_autosign" / STRANGER).unlink()
    assert tended(estate.salt_run("fleet.reconcile", "web"))["result"]
    assert len(ids(estate)) == 4 and estate.keys() == ids(estate)


def collected(estate) -> list[dict[str, Any]]:
    """Return what is collected while somebody else drives the fleet, so that no driver meets the machine first."""
    holder = "UPDATE leases SET until = strftime('%s', 'now') + 60, holder = ? WHERE name = 'fleet web'"
    who = '{"host": "elsewhere", "boot": "1 1", "pid": 1, "started": "1", "since": 0.0}'
    with books(estate) as store:
        store.execute(holder, (who,))
    answer = estate.salt_run("fleet.reconcile", "all")
    with books(estate) as store:
        store.execute("UPDATE leases SET until = 0, holder = NULL WHERE name = 'fleet web'")
    assert tended(answer)["did"] == "busy"
    return list(answer.data["orphans"])


@REAL
def test_after_a_power_cut_all_machines_come_back_with_their_host(estate):
    """With their ids and keys; a rollout that was under way is carried on, and the boot is no failure of its image."""
    before, keys = ids(estate), estate.keys()
    power_cut(estate)
    assert host_boots(estate) == before
    wait_for(lambda: tended(estate.salt_run("fleet.reconcile", "web", check=False))["did"] == "nothing", 90)
    assert (ids(estate), estate.keys()) == (before, keys)
    for victim in before[:2]:
        estate.salt_run("fleet.taint", victim, "reason=by hand")
    with estate.popen("fleet.roll", "web") as roll:
        wait_for(lambda: launched(estate) > 4, 60)
        power_cut(estate)
        roll.kill()
    host_boots(estate)
    wait_for(lambda: tended(estate.salt_run("fleet.reconcile", "web", check=False))["did"] == "nothing", 180)
    assert len(ids(estate)) == 4 and not set(before[:2]) & set(ids(estate)) and estate.keys() == ids(estate)
    rollouts = estate.salt_run("fleet.history", "web").data["rollouts"]
    assert {one["outcome"] for one in rollouts[:2]} == {"done"}, rollouts[:2]


def power_cut(estate) -> None:
    for machine in machines.machines(estate.host):
        if machine.running:
            kill(estate, machine.minion_id)


def host_boots(estate) -> list[str]:
    """Run what the unit of systemd runs; return the machines that were started."""
    command = [sys.executable, "-m", host_boot.PROGRAM, str(estate.host.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(json.loads(done.stdout)["started"])


@REAL
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_who_kills_a_roll_with_all_its_children_kills_no_machine(estate, how):
    for victim in ids(estate)[:2]:
        estate.salt_run("fleet.taint", victim, "reason=by hand")
    with estate.popen("fleet.roll", "web") as roll:
        wait_for(lambda: launched(estate) > 4, 60)
        tree = psutil.Process(roll.pid)
        for process in [*tree.children(recursive=True), tree]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)
    running = [one.minion_id for one in machines.machines(estate.host) if one.running]
    assert len(running) >= 4
    assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
    assert len(ids(estate)) == 4 and estate.keys() == ids(estate)


@REAL
def test_when_too_many_die_none_is_replaced_until_somebody_looks(estate):
    before = ids(estate)
    for victim in before[:2]:
        kill(estate, victim)
    refused = estate.salt_run("fleet.reconcile", "all", check=False)
    assert refused.returncode == 1 and tended(refused)["did"] == "alarm", refused
    assert "2 machines of 4 are sick" in tended(refused)["reason"] and ids(estate) == before
    estate.salt_run("fleet.roll", "web")
    assert len(ids(estate)) == 4 and not set(before[:2]) & set(ids(estate))
    told = estate.salt_run("fleet.reconcile", "all")
    assert tended(told)["did"] == "nothing"
    deeds = [deed["what"] for deed in estate.salt_run("fleet.history", "web").data["deeds"]]
    assert deeds[:2] == ["alarm over", "alarm"]
