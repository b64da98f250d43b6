"""What a driver does when, though nothing comes back."""

from __future__ import annotations

import pytest

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.timers import LISTED, Timers
from saltext.immutable.fleet.drive.track import NEVER, Track

BEAT = 10.0


def track(name: str) -> Track:
    return Track(Record(name, "web", 1, "launched", 0.0, reason=""), since=0.0, probe_at=0.0)


@pytest.fixture
def timers() -> Timers:
    return Timers(100.0, BEAT, routed=True)


@pytest.fixture
def tracks() -> dict[str, Track]:
    return {name: track(name) for name in ("web-b", "web-a")}


def test_the_provider_is_asked_once_until_it_answers(timers):
    assert [timers.is_time_to_list(at) for at in (100.0, 101.0, 500.0)] == [True, False, False]


def test_a_large_fleet_is_listed_less_often(timers):
    assert timers.is_time_to_list(100.0)
    timers.list_soon(100.5, 4 * LISTED)
    assert timers.list_at == 104.0


def test_a_small_fleet_is_listed_at_once_when_something_changed(timers):
    assert timers.is_time_to_list(100.0)
    timers.list_soon(103.0, 3)
    assert timers.list_at == 103.0


def test_the_books_are_read_also_where_a_list_does_not_come_back(timers):
    assert timers.is_time_to_read_books(100.0) and timers.is_time_to_list(100.0)
    assert not timers.is_time_to_read_books(100.0 + BEAT - 1)
    assert timers.is_time_to_read_books(100.0 + BEAT)


def test_a_fleet_without_traffic_never_asks_for_it():
    assert not Timers(100.0, BEAT, routed=False).is_time_for_traffic(1e9)


def test_machines_are_due_once_and_in_order(timers, tracks):
    timers.set(tracks["web-b"], 104.0)
    timers.due("web-a")
    timers.due("web-gone")
    assert timers.next(None, 100.0, tracks) == 104.0
    assert [one.record.minion_id for one in timers.take_due(tracks, 104.0)] == ["web-a", "web-b"]
    assert timers.take_due(tracks, 104.0) == []


def test_an_earlier_timer_wins(timers, tracks):
    machine = tracks["web-a"]
    timers.set(machine, 120.0)
    timers.set(machine, 110.0)
    timers.set(machine, 130.0)
    assert machine.timer == 110.0


def test_who_waits_longest_has_the_next_free_call(timers, tracks):
    for name in ("web-b", "web-gone", "web-a"):
        timers.wait_for_a_call(name)
    served = [timers.next_waiting(tracks) for _ in range(3)]
    assert [one and one.record.minion_id for one in served] == ["web-b", "web-a", None]


def test_who_is_due_anew_waits_anew(timers, tracks):
    timers.wait_for_a_call("web-a")
    timers.due("web-a")
    timers.take_due(tracks, 100.0)
    assert timers.next_waiting(tracks) is None


def test_after_a_jump_of_the_clock_everything_is_due(timers, tracks):
    assert timers.is_time_to_list(100.0) and timers.is_time_for_traffic(100.0)
    assert (timers.list_at, timers.traffic_at) == (NEVER, NEVER)
    timers.restart(50.0)
    assert (timers.list_at, timers.traffic_at, timers.budget_at) == (50.0, 50.0, 50.0)
