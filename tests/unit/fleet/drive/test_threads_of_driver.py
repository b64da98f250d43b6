"""Calls in threads come back through one queue, together with what Salt said."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.drive.threads import Completion, Task, Threads
from saltext.immutable.fleet.signals import stop_on_signal
from saltext.immutable.minions import Event

TASK = Task("launch", "web-1", 0.0)
PROBE = Task("probe", "web-1", 0.0)
FAR = time.time() + 3600


@pytest.fixture
def pool():
    pool = Threads(list, lambda: False, workers=2)
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
    pool = Threads(lambda: [events.pop()] if events else [], lambda: False)
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
    pool = Threads(list, lambda: stopped)
    assert pool.wait(until) == ([], [])
    pool.close()


ENDING = """
import sys, threading
from saltext.immutable.fleet.drive.threads import Threads, Task
pool = Threads(list, lambda: False)
begun, told = threading.Event(), threading.Event()

def change():
    begun.set()
    told.wait()
    print("changed")

pool.submit(Task("probe", "web-1", 0.0), threading.Event().wait)
pool.submit(Task("destroy", "web-1", 0.0), change)
begun.wait()
pool.close()
told.set()
"""


def test_the_end_of_the_process_waits_for_changes_and_not_for_questions():
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "changed\n", "")


@pytest.mark.parametrize(
    ("questions", "threads"),
    [pytest.param(1, 1, id="one is enough for one"), pytest.param(5, 2, id="and there are never more than workers")],
)
def test_threads_that_ask(pool, questions, threads):
    before, under_way, answered = set(threading.enumerate()), threading.Event(), 0
    for _ in range(questions):
        pool.submit(PROBE, under_way.wait)
    assert len(set(threading.enumerate()) - before) == threads
    under_way.set()
    while answered < questions:
        answered += len(pool.wait(FAR)[0])


def test_an_idle_thread_asks_the_next_question(pool):
    threads = set()
    for _ in range(20):
        pool.submit(PROBE, lambda: threads.add(threading.get_ident()))
        assert len(pool.wait(FAR)[0]) == 1
    assert 1 <= len(threads) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with stop_on_signal() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
