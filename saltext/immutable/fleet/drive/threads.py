"""Run calls in threads, and return their completions and Salt's events."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from salt.exceptions import SaltException

from saltext.immutable.minions import Event

Call = Literal["list", "traffic", "launch", "attach", "drain", "destroy", "forget", "probe", "verify", "relaunch"]
CHANGES = frozenset({"launch", "destroy", "forget"})
"""Calls that change something: the provider limits how many run at the same time."""
QUESTIONS = frozenset({"list", "traffic", "probe", "verify"})
"""Calls that change nothing: they may be cut off when the process ends."""

TICK = 0.05
"""Seconds between two reads of Salt's event bus."""
AT_A_TIME = 32
"""How many questions run at the same time."""


@dataclass(frozen=True)
class Task:
    """One running call."""

    kind: Call
    minion_id: str
    asked: float
    """When it was submitted: its answer may be older than a later change."""


@dataclass(frozen=True)
class Completion:
    """A completed call, with its value or its error."""

    task: Task
    value: Any = None
    error: SaltException | None = None


class Effects(Protocol):
    """Runs calls. A simulation has its own, in virtual time."""

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        """Start a call."""

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        """Wait until a call completes or an event comes, at most until ``until``, and return them."""

    def close(self) -> None:
        """Start no more calls; do not wait for questions."""


class QuestionThreads:
    """Daemon threads for questions, at most ``workers``: the end of the process does not wait for them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = False

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call in an idle thread, in a new one, or in the first that becomes idle."""
        self._todo.put(call)
        if not self._idle.acquire(blocking=False) and self._threads < self._workers:
            self._threads += 1
            threading.Thread(target=self._work, name="fleet asks", daemon=True).start()

    def close(self) -> None:
        """Start no more calls, and end the idle threads."""
        self._closed = True
        for _ in range(self._threads):
            self._todo.put(lambda: None)

    def _work(self) -> None:
        while not self._closed:
            self._todo.get()()
            self._idle.release()


class Threads:
    """Runs calls in threads. The end of the process waits for calls that change something, and not for questions.

    (A question about a machine that is gone by now would run into its time-out.)
    """

    def __init__(self, poll: Callable[[], list[Event]], stopped: Callable[[], bool], workers: int = 32) -> None:
        self._poll = poll
        self._stopped = stopped
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="fleet")
        self._questions = QuestionThreads(workers)
        self._done: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        """Start a call. An error that is not Salt's is a bug: `wait` raises it."""

        def run() -> None:
            try:
                self._done.put(Completion(task, value=call()))
            except SaltException as err:
                self._done.put(Completion(task, error=err))
            except BaseException as err:
                self._done.put(err)

        if task.kind in QUESTIONS:
            self._questions.submit(run)
        else:
            self._threads.submit(run)

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        """Wait until a call completes, an event comes or the driver is told to stop, at most until ``until``."""
        while True:
            patience = max(0.0, min(TICK, until - time.time()))
            completions = self._taken(patience)
            events = self._poll()
            if completions or events or self._stopped() or time.time() >= until:
                return completions, events

    def close(self) -> None:
        """Start no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._questions.close()

    def _taken(self, patience: float) -> list[Completion]:
        taken: list[Completion] = []
        try:
            item = self._done.get(timeout=patience)
            while True:
                if isinstance(item, BaseException):
                    raise item
                taken.append(item)
                item = self._done.get_nowait()
        except queue.Empty:
            return taken


def in_parallel(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run calls in threads; return key to result, or to the Salt error that it raised. Ctrl-C does not wait."""
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    for key in calls:
        todo.put(key)

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                key = todo.get_nowait()
                try:
                    done.put((key, calls[key]()))
                except BaseException as err:
                    done.put((key, err))

    for _ in range(min(AT_A_TIME, len(calls))):
        threading.Thread(target=work, daemon=True).start()
    found = dict(done.get() for _ in calls)
    for value in found.values():
        if isinstance(value, BaseException) and not isinstance(value, SaltException):
            raise value
    return found
