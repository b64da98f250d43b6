"""A fleet in a simulated world, as an operator sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import sqlalchemy as sa

from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.ledger import Entry, Ledger
from saltext.immutable.fleet.books.taints import Taints
from saltext.immutable.fleet.drive import planning
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.spec.model import Amount, Definitions, Fleet, FunctionCheck, ProviderSpec, Settings, Strategy
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import leases, meta, metadata
from tests.support.surface import events

from .invariants import Guardian
from .processes import Desk, Process
from .simulated import Simulated
from .visitors import Visitors

FLEET = Fleet(
    check_states=False,  # what it declares is part of the health that the faults give or take
    name="web",
    recipe="web",
    size=3,
    minion_id="web-{token}",
    provider=ProviderSpec("simulated"),
    strategy=Strategy(max_surge=Amount(1), ready_within=30.0, progress_within=90.0),
    health=(FunctionCheck("service.status", ("nginx",)),),
)
JOURNAL = events.journal()
"""Kinds of entries that are written down as public."""
_stores: list[Store] = []
_TABLES = [table for table in metadata.sorted_tables if table.name != "meta"]
Backup = dict[sa.Table, list[dict[str, Any]]]
"""Table to rows."""


@dataclass
class Estate:
    """A fleet, its world and its books."""

    world: Simulated
    store: Store
    fleet: Fleet
    story: list[Entry]
    say: Callable[[Entry], None]
    pillar: dict[str, Fleet] | None = None
    loadable: set[str] = field(default_factory=lambda: {"simulated", "another"})
    settings: Settings | None = None
    guardian: Guardian = field(init=False)

    def __post_init__(self) -> None:
        self.guardian = Guardian(self.world)

    def hear(self, fleet: str, entry: Entry) -> None:
        """Hand an entry of the journal on; it is of this fleet, of a kind that tests/surface/events.yaml has."""
        assert fleet == self.fleet.name
        assert entry.what in JOURNAL, f"{entry.what!r} is no kind of entry in the public surface"
        self.say(entry)

    def operations(self, process: Process | None = None, **changes: Any) -> Operations:
        """Return the commands, as given by a process (None: the one that never dies)."""
        return Operations(
            self.store if process is None else Desk.of(self.store, process),
            Definitions({}, {self.fleet.name: self.fleet} if self.pillar is None else self.pillar),
            self.world,
            self.load,
            self.hear,
            clock=self.world.clock,
            token=self.world.token,
            effects=lambda stopped: self.world if process is None else process,
            route=self.route,
            sleep=self.world.pass_time,
            settings=self.settings,
            ask_all=one_after_the_other,
            **changes,
        )

    def load(self, spec: ProviderSpec) -> Simulated:
        assert spec.name in self.loadable, f"provider {spec.name} is not installed"
        return self.world

    def route(self, spec: object) -> Visitors:
        return self.world.visitors

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.fleet.name)

    def publish(self, image: str) -> None:
        """Bake an image and let the channel name it."""
        self.store.add_image(Image(image, "web", (image,), self.world.clock(), True, {}))
        self.store.set_channel("web", "stable", image)

    def running(self) -> list[str]:
        """Return the images of the machines that are there."""
        return sorted(one.instance.image for one in self.world.machines.values())

    def taint(self, minion_id: str, kind: Any = "hand") -> None:
        """Write down that somebody changed a machine."""
        taints = Taints(self.store)
        if fleet := taints.fleet_of(minion_id):
            taints.add(kind, AuditEntry(self.world.clock(), fleet, minion_id, "tainted", "vim /etc/motd", "jane"))

    def resize(self, size: int) -> None:
        self.fleet = replace(self.fleet, size=size)

    def bury(self) -> None:
        """Let the lease of a process that was killed be free, as that of a dead pid is."""
        with self.store.write() as tx:
            tx.execute(sa.update(leases).values(until=0.0))

    def back_up(self) -> Backup:
        """Return all that the store has, but for the identity of the installation."""
        with self.store.read() as connection:
            return {table: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in _TABLES}

    def put_back(self, backup: Backup) -> None:
        """Let the store be as it was; whoever held a lease then is no more."""
        with self.store.write() as tx:
            for table in reversed(_TABLES):
                tx.execute(sa.delete(table))
            for table, rows in backup.items():
                if rows:
                    tx.execute(sa.insert(table), rows)
        self.bury()
        self.guardian.begin_anew()

    def lose_store(self, nothing: Backup, installation: str) -> None:
        """Let the store be a new one, with another identity. ``nothing``: a backup of one that has nothing in it."""
        self.put_back(nothing)
        with self.store.write() as tx:
            tx.execute(sa.update(meta).where(meta.c.key == "installation").values(value=installation))
        self.store.installation = installation

    def assert_in_order(self, known_only: bool = False) -> None:
        """Assert that the machines are those in the books, and that each has exactly its key and its visitors.

        ``known_only``: what the journal does not name is left aside; the store may have lost it.
        """
        records = self.ledger.records()
        kept = {key for key, record in records.items() if not record.doomed}
        assert set(records) == kept, "no order is left unresolved"
        assert set(self.world.machines) == kept, "the machines are those in the books"
        keys, servers = set(self.world.keys), set(self.world.visitors.servers)
        if known_only:
            keys, servers = (kept | self.ledger.in_journal(keys)) & keys, self.ledger.in_journal(servers)
        assert keys == kept, "one key for each machine, and no other"
        assert servers <= kept, "visitors are sent to nobody else"


def one_after_the_other(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Make calls as threads do, in an order that is the same every time."""
    return {key: call() for key, call in calls.items()}


def store_of(world: Simulated) -> Store:
    """Return an empty store with the world's clock: one in memory, swept each time."""
    if not _stores:
        _stores.append(Store.open("sqlite://"))
    store = _stores[0]
    store.clock, store.proofs_since = world.clock, 0.0  # no older version ever used it
    with store.write() as tx:
        for table in reversed(metadata.sorted_tables):
            if table.name != "meta":
                tx.exec_driver_sql(f"DELETE FROM {table.name}")
    return store


@contextmanager
def settled(world: Simulated, store: Store | None = None, **changes: Any) -> Iterator[Estate]:
    """Make an estate from a simulated world, watched by a guardian."""
    story: list[Entry] = []
    made = Estate(world, store or store_of(world), replace(FLEET, **changes), story, story.append)
    world.taint, world.taken = made.taint, made.guardian.taken
    with mock.patch.object(planning, "plan", made.guardian.plan):
        yield made
