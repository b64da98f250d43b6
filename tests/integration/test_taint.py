"""Machines that are not what their image says any more: found, told, tainted, opened, replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import salt.payload
from support.estate import wait_for
from support.slices import full

REACTOR = Path(__file__).parents[2] / "examples/reactor/drift.sls"


@pytest.fixture(scope="module", autouse=True)
def fleet(estate, web):
    """Three machines, to begin with; nothing at the end."""
    estate.salt_run("fleet.roll", "web")
    yield
    estate.salt_run("fleet.destroy", "web")


def status(estate):
    return estate.salt_run("fleet.status", "web").data


def ids(estate) -> list[str]:
    return [machine["minion_id"] for machine in status(estate)["machines"]]


def tainted(estate) -> dict[str, list[str]]:
    return {one["minion_id"]: one["tainted"] for one in status(estate)["machines"] if one["tainted"]}


def test_a_fresh_fleet_is_as_its_image_says(estate):
    found = estate.salt_run("fleet.drift", "web", "full=True", check=False)
    assert (found.returncode, found.data["drifted"], found.data["unknown"]) == (0, [], []), found.data
    assert found.data["clean"] == 3
    assert all(machine["proven"] for machine in found.data["machines"].values())


def test_what_drifts_is_tainted_by_the_example_reactor_and_replaced(estate, inside, configured):
    victim, innocent, liar = ids(estate)
    inside(victim, "echo evil > /var/lib/evil")
    with configured(reactor=[{"immutable/drift/*": [str(REACTOR)]}]):
        wait_for(lambda: len(estate.salt("web-*", "test.ping", check=False).data or {}) == 3, 60)
        forged = f"salt-call event.send immutable/drift/{innocent} '{{counts: {{file: 9}}}}'; echo exit=$?"
        assert "exit=0" in inside(liar, forged)
        found = estate.salt_run("fleet.drift", "all", check=False)
        assert (found.returncode, found.data["drifted"]) == (1, [victim])
        assert found.data["machines"][victim]["drift"][0]["what"] == "/var/lib/evil"
        wait_for(lambda: bool(tainted(estate)), 30)
    assert list(tainted(estate)) == [victim]
    assert "/var/lib/evil" in tainted(estate)[victim][0]
    foreseen = estate.salt_run("fleet.plan", "web").data
    assert foreseen["changes"] == {"launch": 1, "destroy": [victim]}
    rolled = estate.salt_run("fleet.roll", "web")
    assert rolled.data and rolled.data["outcome"] == "done", rolled
    assert victim not in ids(estate) and {innocent, liar} < set(ids(estate))
    assert tainted(estate) == {}
    deeds = [deed for deed in estate.salt_run("fleet.history", "web").data["deeds"] if deed["minion_id"] == victim]
    assert [(deed["what"], deed["minion_id"]) for deed in deeds] == [("tainted", victim), ("drift", victim)]
    assert deeds[0]["who"] == "Reactor"


@full("waits for an answer that never comes", minutes=2)
def test_a_machine_that_lost_its_agent_is_unknown_and_not_clean(estate, inside):
    silent = ids(estate)[0]
    inside(silent, "systemctl stop salt-minion")
    found = estate.salt_run("fleet.drift", "web", check=False)
    assert (found.returncode, found.data["unknown"], found.data["clean"]) == (1, [silent], 2)
    inside(silent, "systemctl start salt-minion")
    wait_for(lambda: estate.salt(silent, "test.ping", check=False).ok, 60)


def test_broken_glass_opens_one_machine_for_a_while_and_taints_it_for_ever(estate):
    victim, other, _ = ids(estate)
    assert not estate.salt(victim, "cmd.run", "echo open", check=False).ok
    dry = estate.salt_run("fleet.break_glass", victim, "reason=core dump", "test=True").data
    assert (dry["result"], tainted(estate)) == (None, {})

    told = estate.salt_run("fleet.break_glass", victim, "reason=core dump", "ttl=5m").data
    assert told["opens"] and "read-only" in " ".join(told["cannot"])
    assert estate.salt(victim, "cmd.run", "echo open").data == {victim: "open"}
    assert "Read-only file system" in estate.salt(victim, "cmd.run", "touch /etc/x", check=False).stdout
    assert not estate.salt(other, "cmd.run", "echo open", check=False).ok
    assert list(tainted(estate)) == [victim]
    refused = estate.salt_run("fleet.untaint", victim, check=False)
    assert refused.returncode == 1 and "was opened by break-glass" in refused.stdout + refused.stderr

    assert estate.salt_run("fleet.end_break_glass", victim).data["changed"]
    assert not estate.salt(victim, "cmd.run", "echo open", check=False).ok
    for token in tokens(estate, victim):
        replayed = estate.salt(victim, "immutable.break_glass", token, check=False)
        assert not replayed.ok and "break-glass refused" in replayed.stdout, replayed
        assert not estate.salt(other, "immutable.break_glass", token, check=False).ok
    assert not estate.salt(victim, "cmd.run", "echo open", check=False).ok

    estate.salt_run("fleet.roll", "web")
    assert victim not in ids(estate)
    deeds = [deed for deed in estate.salt_run("fleet.history", "web").data["deeds"] if deed["minion_id"] == victim]
    assert [deed["what"] for deed in deeds] == ["end of break-glass", "break-glass"]
    assert deeds[1]["reason"] == "break-glass for 300 s: core dump"
    assert deeds[1]["who"] and deeds[1]["jid"]


def tokens(estate, minion_id: str) -> set[str]:
    """Return the tokens for a machine that Salt's job cache has kept."""
    jobs = (estate.home / "run/cache/jobs").rglob(".load.p")
    loads = [salt.payload.loads(job.read_bytes()) for job in jobs]
    jobs_of_it = [load for load in loads if load["fun"] == "immutable.answer" and minion_id in load["tgt"]]
    sent = [load["arg"][-1]["asked"] for load in jobs_of_it]
    asked = [question for one in sent for question in json.loads(one)]
    found = {kwargs["token"] for fun, _, kwargs in asked if fun == "immutable.break_glass"}
    assert found
    return found


def test_the_launch_phase_of_all_machines_is_run_again(estate):
    order = ids(estate)
    assert sorted(estate.salt_run("fleet.relaunch_phase", "web", "test=True").data["order"]) == sorted(order)
    assert estate.salt_run("fleet.relaunch_phase", "web").data["result"] is True
    deeds = estate.salt_run("fleet.history", "web").data["deeds"][:6]
    assert [deed["what"] for deed in deeds] == ["relaunched", "relaunch"] * 3, "one after the other"
    assert sorted(ids(estate)) == sorted(order)


def test_wrong_input_is_a_sentence(estate):
    for words, says in (
        (("fleet.taint", "web-*", "reason=why"), "minion_id: 'web-*' is not a minion id"),
        (("fleet.taint", "stranger", "reason=why"), "is not a machine of a fleet"),
        (("fleet.break_glass", ids(estate)[0]), "reason: say why"),
    ):
        refused = estate.salt_run(*words, check=False)
        assert refused.returncode == 1 and says in refused.stdout + refused.stderr, refused
        assert "Traceback" not in refused.stdout + refused.stderr
        assert "unclosed" not in refused.stdout + refused.stderr
