"""Orphans are found, reported, recorded and removed; what is needed, or cannot be seen, is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.audit import AuditEntry, AuditLog
from saltext.immutable.fleet.books.ledger import Entry, Ledger, Record
from saltext.immutable.fleet.orphans import Orphans, OrphanStore
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Definitions, Fleet, ProviderSpec
from saltext.immutable.store import Store
from saltext.immutable.store.schema import journal, rollouts

ONE, TWO = "web-0123456789abcdef", "web-fedcba9876543210"
GHOST = "ghost-0123456789abcdef"
FLEET = Fleet("web", "web", 1, "web-{token}", ProviderSpec("p"), orphan_grace=100.0)


@dataclass
class Estate:
    """Books, Salt's keys and one provider, in the hands of a test."""

    store: Store = field(default_factory=lambda: Store.open("sqlite://"))
    now: float = 1000.0
    keys: set[str] = field(default_factory=set)
    instances: dict[str, Instance] = field(default_factory=dict)
    lists: bool = True
    stubborn: bool = False
    settles: float = 0.0
    events: list[str] = field(default_factory=list)
    definitions: Definitions = field(default_factory=lambda: Definitions({}, {"web": FLEET}))

    def __post_init__(self) -> None:
        self.audit, self.minions = AuditLog(self.store), self

    # Operations

    def clock(self) -> float:
        return self.now

    def audit_entry(self, what: str, minion_id: str, fleet: str, reason: str) -> AuditEntry:
        return AuditEntry(self.now, fleet, minion_id, what, reason)

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.store, name)

    def world(self, fleet: Fleet, ledger: Ledger) -> Estate:
        return self

    # Salt

    def known(self) -> set[str]:
        return set(self.keys)

    def forget(self, minion_id: str) -> None:
        self.keys.discard(minion_id)

    # Provider

    def list(self, fleet: str | None) -> list[Instance]:
        if not self.lists:
            raise CommandExecutionError("the provider cannot be reached")
        return list(self.instances.values())

    def destroy(self, ref: str) -> None:
        if self.stubborn:
            raise CommandExecutionError("try again")
        del self.instances[ref.removeprefix("ref-")]

    # The test's hands

    def launch(self, minion_id: str, fleet: str = "web", installation: str | None = None) -> None:
        mine = self.store.installation if installation is None else installation
        self.instances[minion_id] = Instance(
            f"ref-{minion_id}", minion_id, fleet, 1, "1" * 64, True, None, self.now, mine
        )
        self.keys.add(minion_id)

    def record(self, minion_id: str, booked: bool = False) -> None:
        """Write an id into the journal and, if ``booked``, into the table of machines."""
        ledger = Ledger(self.store, "web")
        with self.store.lease("fleet web") as lease:
            rollout = ledger.begin(lease, "roll", 1, self.now)
            record = Record(minion_id, "web", 1, "launched", self.now)
            entry = Entry(self.now, "launch", minion_id, "1 of 1")
            ledger.commit(lease, rollout, [record] if booked else [], [], [entry])

    def collect(self, name: str = "all", **more: Any) -> list[tuple[str, str]]:
        orphans = Orphans(self, lambda spec: self, lambda message, tag, **data: self.events.append(tag))  # type: ignore
        return [(one["minion_id"], one["done"]) for one in orphans.collect(name, **more)]


@pytest.fixture
def estate():
    made = Estate()
    yield made
    made.store.close()


def test_the_journal_of_this_test_is_the_stores(estate):
    estate.record(ONE)
    with estate.store.read() as connection:
        assert connection.execute(sa.select(journal.c.minion_id)).scalars().all() == [ONE]
        assert connection.execute(sa.select(rollouts.c.fleet)).scalars().all() == ["web"]


def test_a_key_of_this_installation_is_reported_once_and_removed_after_the_grace(estate):
    estate.record(ONE)
    estate.keys = {ONE, "builder", "web-pet"}
    assert estate.collect() == [(ONE, "reported")]
    estate.now += 99
    assert estate.collect() == [(ONE, "reported")] and estate.events == ["web/orphan"]
    estate.now += 1
    assert estate.collect(test=True) == [(ONE, "would be removed")] and ONE in estate.keys
    assert estate.collect() == [(ONE, "removed")]
    assert estate.keys == {"builder", "web-pet"} and OrphanStore(estate.store).known() == {}
    assert [entry.what for entry in estate.audit.entries("web")] == ["orphan removed", "orphan"]
    assert estate.collect() == []


def test_a_key_that_the_journal_does_not_know_stays_for_ever(estate):
    estate.keys = {ONE}
    estate.collect()
    estate.now += 10_000
    assert estate.collect() == [(ONE, "reported")] and estate.keys == {ONE}


def test_machines_in_the_store_or_in_a_list_are_no_orphans(estate):
    estate.record(ONE, booked=True)
    estate.record(TWO)
    estate.keys = {ONE}
    estate.launch(TWO, installation="another master's")
    assert estate.collect() == [(TWO, "reported")], "another's machine keeps no key here"
    estate.instances.clear()
    estate.launch(TWO)
    assert estate.collect() == [(TWO, "reported")] and list(OrphanStore(estate.store).known()) == [("machine", TWO)]


def test_a_machine_that_comes_back_into_the_store_is_no_orphan_any_more(estate):
    estate.record(ONE)
    estate.keys = {ONE}
    estate.collect()
    estate.record(ONE, booked=True)
    estate.now += 1000
    assert estate.collect() == [] and estate.keys == {ONE}
    assert OrphanStore(estate.store).known() == {}


@pytest.mark.parametrize("fleet", ["web", "gone"])
def test_a_machine_that_is_not_in_the_store_is_destroyed_after_the_grace_with_its_key(estate, fleet):
    if fleet == "web":
        estate.record(GHOST)  # else the store is older than the machine, and its fleet writes it back
    estate.launch(GHOST, fleet)
    assert estate.collect() == [(GHOST, "reported")]
    estate.now += 3600
    assert estate.collect() == [(GHOST, "removed")]
    assert (estate.instances, estate.keys, OrphanStore(estate.store).known()) == ({}, set(), {})
    assert estate.events == [f"{fleet}/orphan", f"{fleet}/orphan-removed"]


def test_a_machine_that_the_store_never_knew_is_its_fleets(estate):
    """The store is older than it is: a backup was put back."""
    estate.launch(ONE)
    estate.now += 100_000
    assert estate.collect() == [] and ONE in estate.instances and estate.keys == {ONE}


def test_its_key_waits_until_no_list_that_lags_could_miss_it(estate):
    estate.settles = 60.0
    estate.launch(GHOST, "gone")
    estate.collect()
    estate.now += 3600
    estate.collect()
    assert estate.keys == {GHOST}
    estate.now += 59
    assert estate.collect() == [] and estate.keys == {GHOST}
    estate.now += 1
    assert estate.collect() == [] and estate.keys == set()
    assert OrphanStore(estate.store).known() == {}


def test_one_that_cannot_be_destroyed_stays_and_is_tried_again(estate):
    estate.launch(GHOST, "gone")
    estate.collect()
    estate.now, estate.stubborn = estate.now + 3600, True
    assert estate.collect() == [(GHOST, "stays: try again")] and estate.keys == {GHOST}
    estate.stubborn = False
    assert estate.collect() == [(GHOST, "removed")] and estate.keys == set()


def test_a_provider_that_does_not_list_stops_it(estate):
    estate.record(ONE)
    estate.keys = {ONE}
    estate.collect()
    estate.now, estate.lists = estate.now + 3600, False
    with pytest.raises(CommandExecutionError, match="cannot be reached"):
        estate.collect()
    assert estate.keys == {ONE}


def test_excluded_and_other_fleets_are_left_alone(estate):
    estate.record(ONE)
    estate.keys = {ONE}
    estate.launch(GHOST, "gone")
    assert estate.collect(exclude={"web"}) == [(GHOST, "reported")]
    assert estate.collect("web") == [(ONE, "reported")]
    estate.now += 3600
    assert estate.collect("web", exclude={"web"}) == [] and ONE in estate.keys
    assert estate.collect("web") == [(ONE, "removed")] and GHOST in estate.instances
    assert [key for key in OrphanStore(estate.store).known()] == [("machine", GHOST)]


def test_machines_of_another_master_and_those_whose_id_is_a_glob_are_left_alone(estate):
    estate.launch(GHOST, "gone", installation="another")
    estate.launch("*", "gone")
    estate.keys = {"builder"}
    for _ in range(2):
        assert estate.collect() == []
        estate.now += 10_000
    assert len(estate.instances) == 2 and estate.keys == {"builder"}


def test_a_dry_run_records_nothing(estate):
    estate.launch(GHOST, "gone")
    assert estate.collect(test=True) == [(GHOST, "reported")]
    assert OrphanStore(estate.store).known() == {} and estate.events == []


def test_the_pillars_grace_counts(estate):
    estate.definitions = Definitions({}, {"web": replace(FLEET, orphan_grace=5.0)})
    estate.record(ONE)
    estate.launch(ONE)
    estate.collect()
    estate.now += 5
    assert estate.collect() == [(ONE, "removed")]
