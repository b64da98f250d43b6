"""What operators do with Salt every day works on a sealed machine, and none of it is drift."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.estate import wait_for

PILLAR = {
    "fort": {"authorized": "no key"},
    "mine_functions": {"network.ip_addrs": []},
    "beacons": {"service": [{"services": {"nginx": {"onchangeonly": True}}}, {"interval": 1}]},
}


@dataclass
class Day:
    estate: Any
    minion_id: str
    shell: Callable[[str], str]

    def salt(self, *words: str, check: bool = True) -> Any:
        return self.estate.salt(self.minion_id, *words, check=check).data[self.minion_id]

    def begin(self, *words: str) -> str:
        """Start a job, and return its id."""
        return str(self.estate.salt(self.minion_id, *words, "--async").stdout.split()[-1].strip('"'))


@pytest.fixture(scope="module")
def day(estate, inside, booted) -> Iterator[Day]:
    estate.write_pillar("fort", PILLAR)
    estate.salt_run("image.bake", "fort")
    try:
        estate.salt_run("fleet.roll", "fort")
        [machine] = estate.salt_run("fleet.status", "fort").data["machines"]
        booted(machine["minion_id"])
        yield Day(estate, machine["minion_id"], lambda line: inside(machine["minion_id"], line))
    finally:
        estate.salt_run("fleet.destroy", "fort")


def test_the_mine_is_updated_by_a_timer_and_by_hand(day):
    assert day.shell("systemctl is-active immutable-mine.timer") == "active"
    day.shell("systemctl start immutable-mine.service")
    assert day.shell("systemctl show -p Result --value immutable-mine.service") == "success"
    assert day.estate.salt_run("mine.get", "fort-*", "network.ip_addrs").data[day.minion_id]
    assert day.salt("mine.update") is True


def test_beacons_tell_of_a_service_that_stops_and_salt_starts_it_again(day):
    with day.estate.popen("state.event", f"salt/beacon/{day.minion_id}/*", "count=1") as listener:
        try:
            wait_for(lambda: "service" in str(day.salt("beacons.list")), 20)
            assert day.salt("service.stop", "nginx") is True
            said, _ = listener.communicate(timeout=30)
        finally:
            listener.kill()
    assert "nginx" in said
    assert day.salt("service.start", "nginx") is True
    assert day.salt("service.restart", "nginx") is True
    assert day.salt("service.status", "nginx") is True


def test_a_long_job_is_asked_for_until_it_ends(day):
    answer = day.estate.salt(day.minion_id, "test.sleep", "9", "-t", "2")
    assert answer.data == {day.minion_id: True}
    assert answer.seconds > 9


def test_a_job_is_ended(day):
    jid = day.begin("test.sleep", "300")
    wait_for(lambda: day.salt("saltutil.find_job", jid), 20)
    day.salt("saltutil.term_job", jid)
    wait_for(lambda: not day.salt("saltutil.find_job", jid), 20)


@pytest.mark.parametrize("runner", ["manage.up", "manage.present", "manage.alived"])
def test_the_master_sees_who_is_there(day, runner):
    assert day.minion_id in str(day.estate.salt_run(runner).data)


def test_the_master_tells_who_is_up_and_down(day):
    assert day.estate.salt_run("manage.status").data == {"up": [day.minion_id], "down": []}


def test_the_pillar_is_refreshed(day):
    day.estate.write_pillar("fort", {**PILLAR, "motto": "stay"})
    assert day.salt("saltutil.refresh_pillar") is True
    wait_for(lambda: "motto" in day.salt("pillar.items"), 20)


def test_a_returner_of_the_job_gets_the_answer(day):
    day.shell("mkdir -p /var/log/salt")
    day.salt("test.ping", "--return=rawfile_json")
    wait_for(lambda: "test.ping" in day.shell("cat /var/log/salt/events"), 10)


def test_jobs_are_looked_up_targeted_and_run_in_batches(day):
    compound = "G@immutable:recipe:fort and fort-*"
    for target in (["-G", "immutable:sealed:True"], ["-C", compound], ["-b", "1", "fort-*"]):
        assert day.minion_id in day.estate.salt(*target, "test.ping").stdout
    jid = day.begin("test.ping")
    wait_for(lambda: day.minion_id in str(day.estate.salt_run("jobs.lookup_jid", jid).data), 20)
    assert jid in day.estate.salt_run("jobs.list_jobs").data


def test_the_tree_is_tried_without_a_change(day):
    states = day.salt("state.apply", "fort", "test=True", check=False)
    assert isinstance(states, dict), states
    assert {state["__id__"] for state in states.values()}
    assert all(state["result"] is not False for state in states.values()), states
    [sealed] = [state for state in states.values() if state["__id__"] == "this host is finished"]
    assert sealed["comment"].startswith("this machine is sealed: fort@")


def test_logs_are_rotated(day):
    day.shell("echo more >> /var/log/nginx/access.log; logrotate -f /etc/logrotate.conf; journalctl --rotate")
    assert "access.log.1" in day.shell("ls /var/log/nginx")


def test_what_operated_was_counted_and_nothing_of_it_is_drift(day):
    counts = day.salt("immutable.status")["counts"]
    assert {"service.stop", "service.restart", "mine.update", "saltutil.term_job"} <= set(counts["operated"])
    assert counts.get("refused", {}).keys() <= {"state.highstate"}, "only what its startup_states want"
    found = day.estate.salt_run("fleet.drift", "fort", check=False)
    assert found.returncode == 0, json.dumps(found.data, indent=1)
