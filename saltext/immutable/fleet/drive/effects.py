"""Calls that run in threads, and what comes back: their completions, and events of Salt."""

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
"""Calls of which so many may be under way at once as the provider takes."""
QUESTIONS = frozenset({"list", "traffic", "probe", "verify"})
"""Calls that change nothing: the end of the process may cut them off."""

TICK = 0.05
"""Seconds between two looks at Salt's event bus."""
AT_A_TIME = 32
"""Questions that are asked at once."""


@dataclass(frozen=True)
class Task:
    """One call that is under way."""

    kind: Call
    minion_id: str
    asked: float
    """When it was submitted: an answer may be older than what has been done since."""


@dataclass(frozen=True)
class Completion:
    """A call that came back, with its value or with the error of Salt or of the provider."""

    task: Task
    value: Any = None
    error: SaltException | None = None


class Effects(Protocol):
    """Where calls run. A simulation has its own, in virtual time."""

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        """Start a call."""

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        """Return what came back as soon as there is something, or nothing at ``until``."""

    def close(self) -> None:
        """Start no more; do not wait for calls that only ask."""


class Askers:
    """Threads that the end of the process does not wait for; as many as there were calls at once."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = False

    def submit(self, call: Callable[[], None]) -> None:
        """Let an idle thread, or a new one, make a call; with all of them busy, the first that is free again."""
        self._todo.put(call)
        if not self._idle.acquire(blocking=False) and self._threads < self._workers:
            self._threads += 1
            threading.Thread(target=self._work, name="fleet asks", daemon=True).start()

    def close(self) -> None:
        """Start no more calls, and let the idle threads end."""
        self._closed = True
        for _ in range(self._threads):
            self._todo.put(lambda: None)

    def _work(self) -> None:
        while not self._closed:
            self._todo.get()()
            self._idle.release()


class Pool:
    """Calls in threads. The end of the process waits for those that change something, whatever ends it.

    It does not wait for a question: that may be about a machine that is gone by now, and answered by nobody.
    """

    def __init__(self, poll: Callable[[], list[Event]], stopped: Callable[[], bool], workers: int = 32) -> None:
        self._poll = poll
        self._stopped = stopped
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="fleet")
        self._askers = Askers(workers)
        self._done: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        """Start a call; what is not an error of Salt's is a bug and is raised where the driver waits."""

        def run() -> None:
            try:
                self._done.put(Completion(task, value=call()))
            except SaltException as err:
                self._done.put(Completion(task, error=err))
            except BaseException as err:
                self._done.put(err)

        if task.kind in QUESTIONS:
            self._askers.submit(run)
        else:
            self._threads.submit(run)

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        """Return as soon as a call came back, an event came, or the driver is told to stop."""
        while True:
            patience = max(0.0, min(TICK, until - time.time()))
            completions = self._taken(patience)
            events = self._poll()
            if completions or events or self._stopped() or time.time() >= until:
                return completions, events

    def close(self) -> None:
        """Start no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._askers.close()

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
    """Return what the calls return, or the error of Salt's that they raised. An interrupt does not wait for them."""
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
