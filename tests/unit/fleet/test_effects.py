"""Calls in threads come back through one queue, together with what Salt said."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.effects import Completion, Pool, Task
from saltext.immutable.fleet.operations import signals
from saltext.immutable.minions import Event

TASK = Task("launch", "web-1", 0.0)
FAR = time.time() + 3600


@pytest.fixture
def pool():
    pool = Pool(list, lambda: False, workers=2)
    yield pool
    pool.close()


def test_a_value_comes_back(pool):
    pool.submit(TASK, lambda: "ref")
    assert pool.wait(FAR) == ([Completion(TASK, value="ref")], [])


def test_what_the_world_says_against_it_comes_back(pool):
    error = CommandExecutionError("no capacity")

    def launch():
        raise error

    pool.submit(TASK, launch)
    assert pool.wait(FAR) == ([Completion(TASK, error=error)], [])


def test_a_bug_is_raised_where_the_driver_waits(pool):
    pool.submit(TASK, lambda: {}["absent"])
    with pytest.raises(KeyError):
        pool.wait(FAR)


def test_events_come_while_calls_are_under_way():
    events = [Event("started", "web-1")]
    pool = Pool(lambda: [events.pop()] if events else [], lambda: False)
    under_way = threading.Event()
    pool.submit(TASK, under_way.wait)
    assert pool.wait(FAR) == ([], [Event("started", "web-1")])
    under_way.set()
    pool.close()


@pytest.mark.parametrize(
    ("until", "stopped"),
    [pytest.param(0.0, False, id="the time has come"), pytest.param(FAR, True, id="we are told to stop")],
)
def test_it_returns_with_nothing_when(until, stopped):
    pool = Pool(list, lambda: stopped)
    assert pool.wait(until) == ([], [])
    pool.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with signals() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
