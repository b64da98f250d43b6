"""A fleet of real machines: rolled, failed, rolled back, killed in the middle, refused, destroyed."""

from __future__ import annotations

import os
import random
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.estate import wait_for


@pytest.fixture(scope="module", autouse=True)
def fleet(estate, web):
    """Three machines at version 1, to begin with; nothing at the end."""
    estate.salt_run("fleet.roll", "web")
    yield
    estate.salt_run("fleet.destroy", "web")
    estate.write_pillar("web", {"web": {"version": "1", "status": 200}})


def status(estate):
    return estate.salt_run("fleet.status", "web").data


def served(estate) -> list[str]:
    """What the pages of the machines say."""
    said = []
    for machine in status(estate)["machines"]:
        with urllib.request.urlopen(f"http://{machine['address']}/", timeout=5) as page:
            said.append(page.read().decode().strip())
    return said


def bake(estate, version: str, answer: int = 200) -> str:
    estate.write_pillar("web", {"web": {"version": version, "status": answer}})
    return str(estate.salt_run("image.bake", "web").data["image"])


def keys_are_those_of_the_machines(estate) -> None:
    assert estate.keys() == sorted(machine["minion_id"] for machine in status(estate)["machines"])


def test_three_machines_serve_the_image(estate, web):
    assert served(estate) == ["version 1"] * 3
    assert {machine["image"] for machine in status(estate)["machines"]} == {web["image"]}
    keys_are_those_of_the_machines(estate)
    assert estate.salt_run("fleet.plan", "web").data["verdict"] == "done"
    assert estate.salt_run("fleet.roll", "web").data["timeline"] == []


CHANGES = [
    ("state.highstate",),
    ("state.apply", "web"),
    ("state.single", "file.touch", "/var/x"),
    ("pkg.install", "less"),
    ("file.write", "/var/x", "drift"),
    ("cmd.run", "touch /var/x"),
    ("saltutil.sync_all",),
]


@pytest.mark.parametrize("call", CHANGES, ids=" ".join)
def test_a_change_is_refused_from_the_master_and_from_within(estate, inside, web, call):
    first, second, _ = (machine["minion_id"] for machine in status(estate)["machines"])
    remote = estate.salt(first, *call, check=False)
    sealed = f"sealed: image {web['image']} of fleet web"
    assert remote.returncode == 1 and sealed in remote.stdout, remote
    words = " ".join(f"'{word}'" for word in call)
    local = "--local" if CHANGES.index(call) % 2 else ""
    answer = inside(second, f"salt-call {local} {words}; echo exit=$?")
    assert "exit=1" in answer and sealed in answer, answer
    assert "No such file" in inside(first, "ls /var/x")


def test_what_changes_nothing_is_answered(estate, web):
    pings = estate.salt("web-*", "test.ping").data
    assert list(pings.values()) == [True] * 3
    told, known = estate.salt("web-*", "immutable.status").data, (web["image"], "web", status(estate)["generation"])
    assert {(one["image"], one["fleet"], one["generation"]) for one in told.values()} == {known}
    grains = estate.salt("G@immutable:digest:" + web["digest"], "-C", "grains.get", "immutable:recipe").data
    assert list(grains.values()) == ["web"] * 3


def test_roll_to_another_version_fail_with_a_third_and_go_back_to_the_first(estate, web):
    second = bake(estate, "2")
    foreseen = estate.salt_run("fleet.plan", "web").data
    assert (foreseen["verdict"], foreseen["image"], len(foreseen["changes"]["destroy"])) == ("roll", second, 3)
    old = sorted(machine["minion_id"] for machine in status(estate)["machines"])
    assert sorted(estate.salt_run("fleet.roll", "web", "test=True").data["changes"]["destroy"]) == old
    assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
    assert served(estate) == ["version 2"] * 3
    keys_are_those_of_the_machines(estate)

    before = status(estate)["machines"]
    third = bake(estate, "3", answer=500)
    failed = estate.salt_run("fleet.roll", "web", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert "answers 500" in said and "--- console of web-" in said, said
    now = status(estate)
    assert {machine["minion_id"] for machine in now["machines"]} == {machine["minion_id"] for machine in before}
    assert (now["image"], now["rollout"]["outcome"]) == (second, "rolled back")
    assert served(estate) == ["version 2"] * 3
    keys_are_those_of_the_machines(estate)
    assert third in [row["image"] for row in estate.salt_run("fleet.history", "web").data["generations"]]

    back = estate.salt_run("fleet.rollback", "web").data
    assert (back["outcome"], back["image"]) == ("done", web["image"])
    assert served(estate) == ["version 1"] * 3


def test_a_second_roll_is_told_who_holds_the_fleet(estate):
    bake(estate, "4")
    first = estate.popen("fleet.roll", "web")
    wait_for(lambda: len(estate.keys()) > 3 or first.poll() is not None, 30)
    with ThreadPoolExecutor() as threads:  # both before the first one has ended
        shown = threads.submit(status, estate)
        second = threads.submit(estate.salt_run, "fleet.roll", "web", check=False).result()
        assert f"pid {first.pid} on " in shown.result()["held_by"]
    assert second.returncode == 1
    assert f"fleet web is held by pid {first.pid} on " in second.stdout + second.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert served(estate) == ["version 4"] * 3


def test_a_roll_that_was_killed_at_any_moment_ends_right_when_it_is_asked_again(estate):
    bake(estate, "5")
    dice = random.Random(int(os.environ.get("IMMUTABLE_SEED", "5")))
    moments = [dice.uniform(1.0, 5.0) for _ in range(4)]
    for moment in moments:
        process = estate.popen("fleet.roll", "web")
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done", moments
    assert served(estate) == ["version 5"] * 3, moments
    keys_are_those_of_the_machines(estate)
    leaks = estate.leaks()
    assert [leaks[kind] for kind in ("machines", "keys", "links")] == [3, 3, 3]
    assert not any(leaks[kind] for kind in ("cgroups", "workspaces", "mounts")), leaks


def test_a_machine_that_died_is_replaced_by_the_next_roll(estate, inside):
    victim = status(estate)["machines"][0]["minion_id"]
    inside(victim, "systemctl poweroff --force --force")
    wait_for(lambda: victim in str([m for m in status(estate)["machines"] if m["phase"] == "stopped"]), 20)
    assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
    keys_are_those_of_the_machines(estate)
    assert victim not in str(status(estate))
    assert served(estate) == ["version 5"] * 3


def test_destroying_names_its_victims_and_leaves_nothing(estate, nothing_is_left):
    victims = sorted(machine["minion_id"] for machine in status(estate)["machines"])
    assert sorted(estate.salt_run("fleet.destroy", "web", "test=True").data["changes"]["destroy"]) == victims
    assert estate.keys() == victims
    assert estate.salt_run("fleet.destroy", "web").data["outcome"] == "done"
    nothing_is_left()
    assert estate.salt_run("fleet.destroy", "web").data["outcome"] == "done"
