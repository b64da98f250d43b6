"""Find keys and machines that are in no book, remember since when, and let them go after ``orphan_grace``.

No lease is needed: what a driver launches is in the books before it has a key or a machine, and no id is used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from salt.exceptions import SaltException

from saltext.immutable.fleet.decide.orphans import Decision, Orphan, decide, orphan_keys
from saltext.immutable.fleet.drive.world import is_ours
from saltext.immutable.fleet.interventions import Tell
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.providers import Instance, Provider
from saltext.immutable.spec.model import ProviderSpec
from saltext.immutable.store import Store
from saltext.immutable.store.schema import generations, journal, machines, orphans
from saltext.immutable.text import plain

AT_ONCE = 500
"""Ids that one query names."""

Key = tuple[str, str]
"""What it is, and its minion id."""


@dataclass(frozen=True)
class Remembered:
    """A key or a machine that was seen in no book."""

    what: str
    minion_id: str
    fleet: str
    since: float
    ended: float | None = None
    """When its end was asked for; its key goes when no list shows it any more."""


@dataclass(frozen=True)
class Listed:
    """A machine of ours, and who lists it."""

    instance: Instance
    provider: Provider


class Book:
    """What is remembered of orphans, and what the other books know of ids."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def remembered(self) -> dict[Key, Remembered]:
        """Return the orphans of earlier looks."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(orphans)).mappings()
            return {(row["what"], row["minion_id"]): Remembered(**row) for row in rows}

    def write(self, changed: Iterable[Remembered] = (), over: Iterable[Key] = ()) -> None:
        """Remember some, and forget others."""
        rows = [asdict(one) for one in changed]
        with self._store.write() as tx:
            for what, minion_id in [*over, *((row["what"], row["minion_id"]) for row in rows)]:
                tx.execute(sa.delete(orphans).where(orphans.c.what == what, orphans.c.minion_id == minion_id))
            if rows:
                tx.execute(sa.insert(orphans), rows)

    def machines(self) -> set[str]:
        """Return the minion ids of all machines of all fleets."""
        with self._store.read() as connection:
            return set(connection.execute(sa.select(machines.c.minion_id)).scalars())

    def named(self, ids: Sequence[str]) -> set[str]:
        """Return those ids that our journal knows."""
        found: set[str] = set()
        with self._store.read() as connection:
            for start in range(0, len(ids), AT_ONCE):
                where = journal.c.minion_id.in_(ids[start : start + AT_ONCE])
                found.update(connection.execute(sa.select(journal.c.minion_id).where(where).distinct()).scalars())
        return found

    def providers(self) -> list[ProviderSpec]:
        """Return the settings that any generation of any fleet had."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(generations.c.provider, generations.c.settings))
            return [ProviderSpec(row.provider, row.settings) for row in rows]


class Orphans:
    """What nobody wants, of one fleet or of all."""

    def __init__(self, operations: Operations, load: Callable[[ProviderSpec], Provider], tell: Tell) -> None:
        self._operations, self._load, self._tell = operations, load, tell
        self._minions, self._book = operations.minions, Book(operations.store)
        self._fleets = operations.definitions.fleets

    def collect(self, name: str, but: Collection[str] = (), test: bool = False) -> list[dict[str, Any]]:
        """Tell of what is in no book, and let go of what has been so for long enough.

        ``but``: fleets that are left alone. Raises where a provider does not list its machines: what cannot be seen
        could be wanted.
        """
        keys = self._minions.known()  # before the books: what is launched meanwhile is in these already
        providers = self._providers()
        listed = self._listed(providers)
        before = {key: one for key, one in self._book.remembered().items() if _concerns(one.fleet, name, but)}
        orphans = [orphan for orphan in self._orphans(keys, listed) if _concerns(orphan.fleet, name, but)]
        since = {key: one.since for key, one in before.items()}
        seen = decide(orphans, since, self._fleets, self._operations.clock())
        if test:
            return [_told(one, "would be removed" if one.remove else "reported") for one in seen]
        self._remember(seen, before)
        told = [self._dealt_with(one, listed) for one in seen]
        self._bury(providers, name, but)
        return told

    # Look

    def _providers(self) -> list[Provider]:
        """Return all that may have machines of ours."""
        specs: list[ProviderSpec] = []
        for spec in [*(fleet.provider for fleet in self._fleets.values()), *self._book.providers()]:
            if spec not in specs:
                specs.append(spec)
        return [self._load(spec) for spec in specs]

    def _listed(self, providers: Sequence[Provider]) -> dict[str, Listed]:
        """Return all machines of this installation, whatever their fleet."""
        found: dict[str, Listed] = {}
        for provider in providers:
            for instance in provider.list(None):
                if is_ours(instance, self._operations.store.installation):
                    found.setdefault(instance.minion_id, Listed(instance, provider))
        return found

    def _orphans(self, keys: Collection[str], listed: Mapping[str, Listed]) -> list[Orphan]:
        booked, fleets = self._book.machines(), self._fleets.values()
        alone = sorted(set(listed) - booked)
        candidates = [one.minion_id for one in orphan_keys(keys, fleets, {*booked, *listed}, ())]
        return [
            *(Orphan(minion_id, "machine", listed[minion_id].instance.fleet) for minion_id in alone),
            *orphan_keys(candidates, fleets, (), self._book.named(candidates)),
        ]

    # Act

    def _remember(self, seen: Sequence[Decision], before: Mapping[Key, Remembered]) -> None:
        """Write down what is new, and strike out what is an orphan no more."""
        now_seen = {(one.orphan.what, one.orphan.minion_id): one for one in seen}
        new = [one for key, one in now_seen.items() if key not in before]
        over = [key for key, one in before.items() if key not in now_seen and one.ended is None]
        self._book.write([Remembered(s.orphan.what, s.orphan.minion_id, s.orphan.fleet, s.since) for s in new], over)
        for decision in new:
            self._say("orphan", decision.orphan, decision.reason)

    def _dealt_with(self, decision: Decision, listed: Mapping[str, Listed]) -> dict[str, Any]:
        if not decision.remove:
            return _told(decision, "reported")
        orphan = decision.orphan
        try:
            if orphan.what == "key":
                self._forget(orphan.minion_id, orphan.fleet)
                self._book.write(over=[("key", orphan.minion_id)])
            else:
                self._end(decision, listed[orphan.minion_id])
        except SaltException as err:
            return _told(decision, f"stays: {plain(str(err))}")
        self._say("orphan removed", orphan, decision.reason)
        return _told(decision, "removed")

    def _end(self, decision: Decision, listed: Listed) -> None:
        orphan, now = decision.orphan, self._operations.clock()
        self._book.write([Remembered(orphan.what, orphan.minion_id, orphan.fleet, decision.since, ended=now)])
        listed.provider.destroy(listed.instance.ref)

    def _bury(self, providers: Sequence[Provider], name: str, but: Collection[str]) -> None:
        """Delete the keys of machines that we ended, once they are gone for good."""
        remembered = self._book.remembered().values()
        ended = [one for one in remembered if one.ended is not None and _concerns(one.fleet, name, but)]
        if not ended:
            return
        settles = max(provider.settles for provider in providers)
        there = self._listed(providers)
        for one in ended:
            assert one.ended is not None
            if one.minion_id not in there and self._operations.clock() >= one.ended + settles:
                self._forget(one.minion_id, one.fleet)
                self._book.write(over=[("machine", one.minion_id)])

    def _forget(self, minion_id: str, name: str) -> None:
        """Delete keys, and the place in the traffic where the pillar says who sends the visitors."""
        if name in self._fleets:
            self._operations.world(self._fleets[name], self._operations.ledger(name)).forget(minion_id)
        else:
            self._minions.forget(minion_id)

    def _say(self, what: str, orphan: Orphan, reason: str) -> None:
        deed = self._operations.audit_entry(what, orphan.minion_id, orphan.fleet, reason)
        self._operations.audit.write(deed)
        data = {"fleet": orphan.fleet, "minion_id": orphan.minion_id, "reason": reason, "at": deed.at}
        self._tell(f"{what} {orphan.minion_id}: {reason}", f"{orphan.fleet}/{what.replace(' ', '-')}", **data)


def _concerns(fleet: str, name: str, but: Collection[str]) -> bool:
    return name in ("all", fleet) and fleet not in but


def _told(decision: Decision, what: str) -> dict[str, Any]:
    orphan = decision.orphan
    told = {"what": orphan.what, "minion_id": orphan.minion_id, "fleet": orphan.fleet}
    return {**told, "reason": decision.reason, "done": what}
