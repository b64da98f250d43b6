"""What is known of a fleet's machines, and what of it the plan sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.picture import Picture
from saltext.immutable.fleet.drive.track import Track
from saltext.immutable.fleet.drive.world import Probe
from saltext.immutable.providers import Instance

NOW, SETTLES, STARTS_WITHIN = 1000.0, 5.0, 60.0


def record(name: str, ref: str | None = None) -> Record:
    return Record(name, "web", 1, "launched", 900.0, ref=ref or name, reason="")


def instance(name: str, running: bool = True) -> Instance:
    return Instance(name, name, "web", 1, "d" * 64, running, "10.0.0.2", 900.0, "ours")


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def picture(changes) -> Picture:
    return Picture({name: record(name) for name in ("web-a", "web-b")}, False, NOW, changes.append, STARTS_WITHIN)


def test_the_plan_sees_each_machine_and_whether_anything_moved(picture):
    assert [machine.minion_id for machine in picture.machines()] == ["web-a", "web-b"]
    assert picture.has_changed
    picture.has_changed = False
    picture.machines()
    assert not picture.has_changed


def test_only_a_change_that_the_plan_sees_moves_the_picture(picture, changes):
    picture.machines()
    picture.has_changed = False
    picture.changed("web-a")
    picture.machines()
    assert changes == ["web-a"] and not picture.has_changed
    picture.set_marks({"web-a": "drift"}, {})
    assert picture.machines()[0].taint == "drift" and picture.has_changed
    assert changes == ["web-a"], "there is nothing to write of a mark, and nothing to do"


def test_who_is_listed_but_in_no_book_is_a_stranger(picture):
    listed = [instance("web-a"), instance("web-x")]
    assert picture.unknown_instances(listed, NOW) == [instance("web-x")]


def test_who_was_removed_is_no_stranger_in_an_older_list(picture):
    picture.remove("web-a", NOW + 2)
    assert picture.unknown_instances([instance("web-a")], NOW + 1) == []
    assert picture.unknown_instances([instance("web-a")], NOW + 3) == [instance("web-a")]


def test_a_list_that_a_newer_one_overtook_says_nothing(picture):
    both = [instance("web-a"), instance("web-b")]
    picture.update_from_list(both, NOW + 2, NOW + 2, SETTLES)
    picture.update_from_list([], NOW + 1, NOW + 3, SETTLES)
    assert picture.unknown_instances([instance("web-x")], NOW + 1) == []
    assert picture.tracks["web-a"].absent_since is None


def test_who_is_absent_for_long_enough_is_gone(picture):
    picture.update_from_list([instance("web-b")], NOW + 1, NOW + 1, SETTLES)
    picture.update_from_list([instance("web-b")], NOW + 7, NOW + 7, SETTLES)
    gone, there = picture.machines()
    assert (gone.fault, there.fault) == ("it is gone", None)


def test_a_jump_of_the_clock_makes_health_unknown(picture, changes):
    picture.tracks["web-a"].health = "yes"
    picture.reset(NOW + 100)
    assert [machine.health for machine in picture.machines()] == ["unknown", "unknown"]
    assert changes == ["web-a", "web-b"]


def test_a_new_machine_is_seen_and_written_down(picture, changes):
    picture.add(Track(record("web-c"), since=NOW, probe_at=NOW))
    assert picture.record("web-c") == record("web-c") and picture.record("web-x") is None
    assert len(picture.machines()) == len(picture) == 3 and changes == ["web-c"]


@pytest.mark.parametrize("after, fault", [(STARTS_WITHIN - 1, None), (STARTS_WITHIN, "it has stopped")])
def test_a_machine_that_ended_with_its_host_is_waited_for_as_a_new_one_is(picture, after, fault):
    ended = replace(instance("web-a", running=False), ended_with_host=True)
    for now in (NOW + 1, NOW + 1 + after):
        picture.update_from_list([ended, instance("web-b")], now, now, SETTLES)
    track = picture.tracks["web-a"]
    assert track.fault == fault and track.machine(False).blameless, "its host has booted: no fault of its image"


READY = replace(record("web-a", "ref-web-a"), ready_since=NOW - 500, healthy_since=NOW - 500, intent="launched")


def lists(picture: Picture, at: float, **changes: object) -> bool:
    return picture.update_from_list([replace(instance("web-a"), **changes), instance("web-b")], at, at, SETTLES)


def probed(picture: Picture, health: str, at: float) -> None:
    picture.tracks["web-a"].on_probe(Probe(health), at, at, 0.0)  # type: ignore[arg-type]
    picture.changed("web-a")


def test_a_machine_that_does_not_come_back_with_its_host_is_tainted_and_unhealthy_until_it_is_healthy(changes):
    picture = Picture({"web-a": READY, "web-b": record("web-b")}, False, NOW, changes.append, STARTS_WITHIN)
    assert not lists(picture, NOW + 1)
    assert lists(picture, NOW + 2, running=False, ended_with_host=True), "its host boots"
    assert not lists(picture, NOW + 4, running=False, ended_with_host=True)
    assert lists(picture, NOW + 50, restarted=NOW + 49), "its host has started it again"
    lists(picture, NOW + 48 + STARTS_WITHIN, restarted=NOW + 49)
    assert (picture.machines()[0].health, picture.machines()[0].taint) == ("unknown", None)
    lists(picture, NOW + 49 + STARTS_WITHIN, restarted=NOW + 49)
    late = picture.machines()[0]
    assert (late.health, late.blameless) == ("no", True) and "its host started it again" in str(late.taint)
    probed(picture, "yes", NOW + 200)
    back = picture.machines()[0]
    assert (back.health, back.taint, back.healthy_since, back.blameless) == ("yes", None, NOW + 200, False)
    probed(picture, "unknown", NOW + 205)
    lists(picture, NOW + 999, restarted=NOW + 49)
    assert (picture.machines()[0].health, picture.machines()[0].taint) == ("unknown", None), "it is of its host no more"


def test_the_next_driver_knows_that_a_machine_came_back_with_its_host(changes):
    came_back = replace(READY, restarted=NOW - 400)
    picture = Picture({"web-a": came_back, "web-b": record("web-b")}, False, NOW, changes.append, STARTS_WITHIN)
    for at in (NOW + 1, NOW + 1 + STARTS_WITHIN):
        assert not lists(picture, at, restarted=NOW - 400)
        assert (picture.machines()[0].taint, picture.machines()[0].blameless) == (None, False)
