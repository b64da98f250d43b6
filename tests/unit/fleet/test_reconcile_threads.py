"""Some fleets are reconciled at a time; an error in one is reported, and stops no other."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet import reconcile
from saltext.immutable.fleet.drive.loop import Interrupted

NAMES = [f"fleet-{number}" for number in range(9)]


def test_a_limited_number_of_fleets_runs_at_a_time():
    at_work, most, gate = set(), [], threading.Barrier(reconcile.FLEETS_AT_A_TIME, timeout=10)

    def reconcile_one(name):
        at_work.add(name)
        most.append(len(at_work))
        if len(most) <= reconcile.FLEETS_AT_A_TIME:
            gate.wait()  # nobody gets on unless four are here at once
        at_work.discard(name)
        return {"fleet": name}

    found = reconcile.in_threads(NAMES, reconcile_one, lambda: False)
    assert list(found) == NAMES and max(most) == reconcile.FLEETS_AT_A_TIME


def test_after_a_stop_no_further_fleet_is_begun():
    stop, begun = threading.Event(), []

    def reconcile_one(name):
        begun.append(name)
        stop.set()
        return {"fleet": name}

    with pytest.raises(Interrupted, match="continues"):
        reconcile.in_threads(NAMES, reconcile_one, stop.is_set)
    assert 1 <= len(begun) <= reconcile.FLEETS_AT_A_TIME


def test_a_defect_is_not_swallowed():
    def reconcile_one(name):
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        reconcile.in_threads(NAMES, reconcile_one, lambda: False)


def test_no_fleet_no_thread():
    assert reconcile.in_threads([], lambda name: {}, lambda: False) == {}


class Operations(SimpleNamespace):
    """The part of operations that `reconcile` uses before any fleet has its own."""

    def names(self):
        return NAMES

    @contextmanager
    def stop_signals(self):
        yield lambda: False


@contextmanager
def broken(stopped):
    """Give operations to nobody."""
    raise CommandExecutionError("no master listens")
    yield


def test_a_fleet_that_cannot_be_reconciled_is_reported_and_none_of_its_orphans_is_collected():
    calls = []

    def collect(name, exclude, test):
        calls.append((name, set(exclude), test))
        return [{"minion_id": "web-1", "done": "reported"}]

    result = reconcile.reconcile(Operations(), "all", broken, collect, test=True)
    assert calls == [("all", set(NAMES), True)]
    assert result["retcode"] == 1 and result["orphans"][0]["minion_id"] == "web-1"
    assert result["fleets"]["fleet-3"]["reason"] == "no master listens"


def test_orphans_are_left_alone_if_asked_for_or_if_no_provider_lists(monkeypatch):
    monkeypatch.setattr(Operations, "names", lambda self: [])
    assert reconcile.reconcile(Operations(), "all", broken, None) == {"fleets": {}, "retcode": 0}

    def collect(name, exclude, test):
        raise CommandExecutionError("the provider cannot be reached")

    result = reconcile.reconcile(Operations(), "all", broken, collect)
    assert result == {"fleets": {}, "waits": "no orphans are collected: the provider cannot be reached", "retcode": 1}


@pytest.mark.parametrize(("done", "retcode"), [("reported", 0), ("removed", 0), ("stays: try again", 1)])
def test_an_orphan_that_stays_though_it_should_go_is_a_failure(monkeypatch, done, retcode):
    monkeypatch.setattr(Operations, "names", lambda self: [])
    result = reconcile.reconcile(Operations(), "all", broken, lambda *_: [{"done": done}])
    assert result["retcode"] == retcode
