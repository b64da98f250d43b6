"""Machines with the oldest Salt that is supported, under this master: made, guarded, looked at, opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.slices import full

pytestmark = full("installs another Salt", minutes=0.2)


@pytest.fixture(scope="module")
def old(estate, booted) -> Iterator[str]:
    estate.salt_run("image.bake", "old")
    try:
        estate.salt_run("fleet.roll", "old")
        [machine] = estate.salt_run("fleet.status", "old").data["machines"]
        booted(machine["minion_id"])
        yield machine["minion_id"]
    finally:
        estate.salt_run("fleet.destroy", "old")


def test_it_is_an_old_one(estate, old):
    assert estate.salt(old, "test.version").data[old].startswith("3007.")


def test_its_state_tree_was_applied(old, inside):
    assert inside(old, "cat /etc/small") != ""


@pytest.mark.parametrize(
    "words",
    [
        ("state.highstate",),
        ("state.apply", "small"),
        ("cmd.run", "touch /var/lib/marked"),
        ("test.ping,cmd.run", ",", "touch /var/lib/marked"),
        ("saltutil.sync_all",),
        ("--module-executors=[splay,direct_call]", "cmd.run", "touch /var/lib/marked"),
        ("event.fire", "{func: enable_schedule}", "manage_schedule"),
    ],
    ids=" ".join,
)
def test_what_changes_is_refused(estate, old, inside, words):
    options = [word for word in words if word.startswith("--")]
    answer = estate.salt(old, *(word for word in words if word not in options), *options, check=False)
    assert answer.returncode != 0
    assert "sealed: image old@" in answer.stdout + answer.stderr
    assert inside(old, "test -e /var/lib/marked; echo $?") == "1"


def test_salt_call_is_refused(old, inside):
    said = inside(old, "salt-call --local cmd.run 'touch /var/lib/marked' 2>&1; echo $?")
    assert "sealed: image old@" in said and said.endswith("1")


def test_it_operates(estate, old, inside):
    assert estate.salt(old, "service.restart", "dbus").data[old] is True
    assert estate.salt(old, "mine.update").ok
    dry = estate.salt(old, "state.apply", "small", "test=True", check=False).data[old]
    assert isinstance(dry, dict), dry
    assert inside(old, "systemctl is-active immutable-mine.timer") == "active"


def test_it_tells_all_and_has_no_drift(estate, old):
    status = estate.salt(old, "immutable.status").data[old]
    assert (status["sealed"], status["problems"]) == (True, [])
    found = estate.salt_run("fleet.drift", "old", check=False)
    assert found.returncode == 0, found.data


def test_its_glass_is_broken(estate, old):
    estate.salt_run("fleet.break_glass", old, "reason=to see it", "ttl=1m")
    assert estate.salt(old, "cmd.run", "echo open").data[old] == "open"
    estate.salt_run("fleet.end_break_glass", old)
    assert not estate.salt(old, "cmd.run", "echo open", check=False).ok
