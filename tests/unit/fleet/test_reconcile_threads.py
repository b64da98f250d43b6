"""Fleets are tended some at a time; what goes wrong with one is told, and stops no other."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet import reconcile
from saltext.immutable.fleet.drive.loop import Interrupted

NAMES = [f"fleet-{number}" for number in range(9)]


def test_so_many_at_a_time_and_no_more():
    at_work, most, gate = set(), [], threading.Barrier(reconcile.FLEETS_AT_A_TIME, timeout=10)

    def tend(name):
        at_work.add(name)
        most.append(len(at_work))
        if len(most) <= reconcile.FLEETS_AT_A_TIME:
            gate.wait()  # nobody gets on unless four are here at once
        at_work.discard(name)
        return {"fleet": name}

    found = reconcile.at_once(NAMES, tend, lambda: False)
    assert list(found) == NAMES and max(most) == reconcile.FLEETS_AT_A_TIME


def test_whoever_is_told_to_stop_begins_no_more():
    wish, begun = threading.Event(), []

    def tend(name):
        begun.append(name)
        wish.set()
        return {"fleet": name}

    with pytest.raises(Interrupted, match="goes on"):
        reconcile.at_once(NAMES, tend, wish.is_set)
    assert 1 <= len(begun) <= reconcile.FLEETS_AT_A_TIME


def test_a_defect_is_not_swallowed():
    def tend(name):
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        reconcile.at_once(NAMES, tend, lambda: False)


def test_no_fleet_no_thread():
    assert reconcile.at_once([], lambda name: {}, lambda: False) == {}


class Operations(SimpleNamespace):
    """What `upkeep` needs of operations before any fleet has its own."""

    def names(self):
        return NAMES

    @contextmanager
    def hear(self):
        yield lambda: False


@contextmanager
def broken(name, stopped):
    """Give operations to nobody."""
    raise CommandExecutionError(f"{name}: no master listens")
    yield


def test_a_fleet_that_cannot_be_tended_is_told_and_nothing_of_it_is_collected():
    asked = []

    def collect(name, but, test):
        asked.append((name, set(but), test))
        return [{"minion_id": "web-1", "done": "reported"}]

    told = reconcile.upkeep(Operations(), "all", broken, collect, test=True)
    assert asked == [("all", set(NAMES), True)]
    assert told["retcode"] == 1 and told["orphans"][0]["minion_id"] == "web-1"
    assert told["fleets"]["fleet-3"]["reason"] == "fleet-3: no master listens"


def test_orphans_are_left_where_that_is_wanted_or_where_nobody_can_look(monkeypatch):
    monkeypatch.setattr(Operations, "names", lambda self: [])
    assert reconcile.upkeep(Operations(), "all", broken, None) == {"fleets": {}, "retcode": 0}

    def collect(name, but, test):
        raise CommandExecutionError("the provider cannot be reached")

    told = reconcile.upkeep(Operations(), "all", broken, collect)
    assert told == {"fleets": {}, "waits": "nothing is collected: the provider cannot be reached", "retcode": 1}


@pytest.mark.parametrize(("done", "retcode"), [("reported", 0), ("removed", 0), ("stays: try again", 1)])
def test_an_orphan_that_stays_though_it_should_go_is_a_failure(monkeypatch, done, retcode):
    monkeypatch.setattr(Operations, "names", lambda self: [])
    told = reconcile.upkeep(Operations(), "all", broken, lambda *_: [{"done": done}])
    assert told["retcode"] == retcode
