"""Processes of ours in a simulated world: their calls in flight, their commits, and how they end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from salt.exceptions import SaltException

from saltext.immutable.fleet.drive.threads import Completion, Task
from saltext.immutable.minions import Event
from saltext.immutable.store import Store

from .faults import Killed

if TYPE_CHECKING:
    from .simulated import Simulated

SECONDS = {
    "list": 0.05,
    "traffic": 0.05,
    "launch": 0.3,
    "attach": 0.1,
    "drain": 0.1,
    "destroy": 0.2,
    "forget": 0.05,
    "probe": 0.1,
    "verify": 0.02,
    "relaunch": 1.0,
}
HANGS = 45.0
CHANGES = ("launch", "attach", "drain", "destroy", "forget")


def made_now(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call that answers what it would answer now, however late it is made."""
    try:
        told = call()
    except SaltException as err:
        raised = err

        def fail() -> Any:
            raise raised

        return fail
    return lambda: told


class Process:
    """The effects of one process: what it submitted comes back to it, or to nobody when it is no more."""

    def __init__(self, world: Simulated) -> None:
        self.world = world
        self.calls: dict[int, tuple[Task, Callable[[], Any]]] = {}
        self.inbox: list[Completion] = []
        self.heard: list[Event] = []
        self.dead = False
        self.overtaken = False
        """Somebody else took its lease."""
        self.commits = 0
        self.dies_at: tuple[int, str] | None = None
        """Before or after which commit it is killed."""
        self.waits = 0
        self.stalls_at: int | None = None
        """In which wait it stops for longer than its lease lasts."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What others do then."""
        world.processes.append(self)

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        world, seconds = self.world, SECONDS[task.kind]
        hangs = {
            "launch": world.faults.launch_hangs,
            "probe": world.faults.probe_hangs,
            "traffic": world.faults.traffic_hangs,
        }
        if task.kind in hangs and world.happens(hangs[task.kind]):
            seconds = HANGS
        if task.kind == "list" and world.happens(world.faults.list_overtaken):
            seconds, call = world.random.choice([0.5, 2.0]), made_now(call)
        self.put(seconds * world.random.uniform(0.5, 1.5), task, call)

    def put(self, seconds: float, task: Task, call: Callable[[], Any]) -> None:
        """Let a call come through after so many seconds."""
        number = self.world.later(seconds, lambda: self._land(number))
        self.calls[number] = (task, call)

    def _land(self, number: int) -> None:
        if number not in self.calls:
            return
        task, call = self.calls.pop(number)
        self.world.strays += self.dead or self.overtaken
        try:
            completion = Completion(task, value=call())
        except SaltException as err:
            completion = Completion(task, error=err)
        if not self.dead:
            self.inbox.append(completion)

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        world = self.world
        self.waits += 1
        if self.waits == self.stalls_at:
            world.pass_time(world.random.uniform(31, 90))
            self.meanwhile()
        ahead = world.ahead
        while not self.inbox and not self.heard and world.happens_before(until) and world.ahead >= ahead:
            world.step()
        if not self.inbox and not self.heard and world.ahead >= ahead:
            assert until < float("inf"), "nothing would ever happen"
            world.now = max(world.now, until - world.ahead)
        told = self.inbox, self.heard
        self.inbox, self.heard = [], []
        return told

    def close(self) -> None:
        self.calls.clear()
        if self is not self.world.main and self in self.world.processes:
            self.world.processes.remove(self)

    def die(self) -> None:
        """Be killed: half of the calls that change something come through anyway, soon."""
        self.dead = True
        world, calls = self.world, list(self.calls.values())
        self.calls.clear()
        for task, call in calls:
            if task.kind in CHANGES and world.happens(0.5):
                self.put(world.random.choice([0.0, world.settles * 0.3]), task, call)
        raise Killed

    # Commits

    def before_commit(self) -> None:
        if self.dead:
            raise Killed
        self.commits += 1
        if self.dies_at == (self.commits, "before"):
            self.die()

    def after_commit(self, changes: int) -> None:
        assert not (self.overtaken and changes), "who lost its lease writes nothing"
        if self.dies_at == (self.commits, "after"):
            self.die()


class Desk(Store):
    """The store as one process sees it: each commit is a point at which it may be killed."""

    process: Process

    @classmethod
    def of(cls, store: Store, process: Process) -> Desk:
        desk = copy.copy(store)
        desk.__class__ = cls
        desk.process = process  # type: ignore[attr-defined]
        return desk  # type: ignore[return-value]

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        self.process.before_commit()
        with super().write() as tx:
            before = _changes(tx)
            yield tx
            changes = _changes(tx) - before
        self.process.after_commit(changes)


def _changes(tx: sa.Connection) -> int:
    """Return how many rows this connection, or on PostgreSQL this transaction, has changed so far."""
    if tx.dialect.name == "postgresql":
        changed = "n_tup_ins + n_tup_upd + n_tup_del"
        return int(tx.exec_driver_sql(f"SELECT sum({changed}) FROM pg_stat_xact_user_tables").scalar_one())
    driver: Any = tx.connection.driver_connection
    return int(driver.total_changes)
