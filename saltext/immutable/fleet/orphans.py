"""Find orphans (keys and machines that no fleet has in the store), and remove them after ``orphan_grace``.

No lease is needed: a driver writes a machine to the store before it has a key or an instance, and no minion id is used
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from salt.exceptions import SaltException

from saltext.immutable.fleet.books.queries import among
from saltext.immutable.fleet.books.unknown_machines import never_known
from saltext.immutable.fleet.decide.orphans import Decision, Orphan, decide, orphan_keys
from saltext.immutable.fleet.drive.world import is_ours
from saltext.immutable.fleet.interventions import Notify
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.unknown_machines import distinct
from saltext.immutable.providers import Instance, Provider
from saltext.immutable.spec.model import ProviderSpec
from saltext.immutable.store import Store
from saltext.immutable.store.schema import generations, journal, machines, orphans
from saltext.immutable.text import plain

Key = tuple[str, str]
"""``key`` or ``machine``, and the minion id."""


@dataclass(frozen=True)
class KnownOrphan:
    """An orphan in the store, from an earlier run."""

    what: str
    minion_id: str
    fleet: str
    since: float
    ended: float | None = None
    """When its destruction was requested. Its key is deleted when no provider lists it any more."""


@dataclass(frozen=True)
class Listed:
    """A machine of this installation, and the provider that lists it."""

    instance: Instance
    provider: Provider


class OrphanStore:
    """The orphans in the store, and queries about minion ids that other tables answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def known(self) -> dict[Key, KnownOrphan]:
        """Return the orphans of earlier runs."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(orphans)).mappings()
            return {(row["what"], row["minion_id"]): KnownOrphan(**row) for row in rows}

    def write(self, changed: Iterable[KnownOrphan] = (), removed: Iterable[Key] = ()) -> None:
        """Add or replace some orphans, and delete others."""
        rows = [asdict(one) for one in changed]
        with self._store.write() as tx:
            for what, minion_id in [*removed, *((row["what"], row["minion_id"]) for row in rows)]:
                tx.execute(sa.delete(orphans).where(orphans.c.what == what, orphans.c.minion_id == minion_id))
            if rows:
                tx.execute(sa.insert(orphans), rows)

    def machines(self) -> set[str]:
        """Return the minion ids of all machines of all fleets."""
        with self._store.read() as connection:
            return set(connection.execute(sa.select(machines.c.minion_id)).scalars())

    def in_journal(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that the journal of this store names."""
        with self._store.read() as connection:
            return among(connection, journal.c.minion_id, ids)

    def providers(self) -> list[ProviderSpec]:
        """Return the providers, with settings, of all generations of all fleets."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(generations.c.provider, generations.c.settings))
            return [ProviderSpec(row.provider, row.settings) for row in rows]


class Orphans:
    """Finds and removes the orphans of one fleet, or of all."""

    def __init__(self, operations: Operations, load: Callable[[ProviderSpec], Provider], notify: Notify) -> None:
        self._operations, self._load, self._notify = operations, load, notify
        self._minions, self._store = operations.minions, OrphanStore(operations.store)
        self._fleets = operations.definitions.fleets

    def collect(self, name: str, exclude: Collection[str] = (), test: bool = False) -> list[dict[str, Any]]:
        """Report the orphans of fleet ``name`` (or ``all``), and remove those whose grace period is over.

        ``exclude``: fleets that are left alone. Raises ``CommandExecutionError`` if a provider cannot list its
        machines: a key without a visible machine could still be needed.
        """
        keys = self._minions.known()  # before the store: a machine that is launched meanwhile is in it then
        providers = self._providers()
        listed = self._listed(providers)
        before = {key: one for key, one in self._store.known().items() if _concerns(one.fleet, name, exclude)}
        orphans = [orphan for orphan in self._find(keys, listed) if _concerns(orphan.fleet, name, exclude)]
        since = {key: one.since for key, one in before.items()}
        decisions = decide(orphans, since, self._fleets, self._operations.clock())
        if test:
            return [_data(one, "would be removed" if one.remove else "reported") for one in decisions]
        self._save(decisions, before)
        result = [self._apply(one, listed) for one in decisions]
        self._delete_keys_of_destroyed(providers, name, exclude)
        return result

    # Find

    def _providers(self) -> list[Provider]:
        """Return all providers that may have machines of this installation."""
        specs = [*(fleet.provider for fleet in self._fleets.values()), *self._store.providers()]
        return [self._load(spec) for spec in distinct(specs)]

    def _listed(self, providers: Sequence[Provider]) -> dict[str, Listed]:
        """Return minion id to machine of all machines of this installation, of any fleet."""
        found: dict[str, Listed] = {}
        for provider in providers:
            for instance in provider.list(None):
                if is_ours(instance, self._operations.store.installation):
                    found.setdefault(instance.minion_id, Listed(instance, provider))
        return found

    def _find(self, keys: Collection[str], listed: Mapping[str, Listed]) -> list[Orphan]:
        in_store, fleets = self._store.machines(), self._fleets.values()
        unknown = never_known(self._operations.store, listed)
        owned = {one for one in unknown if listed[one].instance.fleet in self._fleets}  # its fleet writes it back
        machines_only = sorted(set(listed) - in_store - owned)
        candidates = [one.minion_id for one in orphan_keys(keys, fleets, {*in_store, *listed}, ())]
        return [
            *(Orphan(minion_id, "machine", listed[minion_id].instance.fleet) for minion_id in machines_only),
            *orphan_keys(candidates, fleets, (), self._store.in_journal(candidates)),
        ]

    # Act

    def _save(self, decisions: Sequence[Decision], before: Mapping[Key, KnownOrphan]) -> None:
        """Save new orphans and fire their events; delete those that are no orphans any more."""
        current = {(one.orphan.what, one.orphan.minion_id): one for one in decisions}
        new = [one for key, one in current.items() if key not in before]
        resolved = [key for key, one in before.items() if key not in current and one.ended is None]
        found = [KnownOrphan(d.orphan.what, d.orphan.minion_id, d.orphan.fleet, d.since) for d in new]
        self._store.write(found, resolved)
        for decision in new:
            self._log("orphan", decision.orphan, decision.reason)

    def _apply(self, decision: Decision, listed: Mapping[str, Listed]) -> dict[str, Any]:
        if not decision.remove:
            return _data(decision, "reported")
        orphan = decision.orphan
        try:
            if orphan.what == "key":
                self._forget(orphan.minion_id, orphan.fleet)
                self._store.write(removed=[("key", orphan.minion_id)])
            else:
                self._destroy(decision, listed[orphan.minion_id])
        except SaltException as err:
            return _data(decision, f"stays: {plain(str(err))}")
        self._log("orphan removed", orphan, decision.reason)
        return _data(decision, "removed")

    def _destroy(self, decision: Decision, listed: Listed) -> None:
        orphan, now = decision.orphan, self._operations.clock()
        self._store.write([KnownOrphan(orphan.what, orphan.minion_id, orphan.fleet, decision.since, ended=now)])
        listed.provider.destroy(listed.instance.ref)

    def _delete_keys_of_destroyed(self, providers: Sequence[Provider], name: str, exclude: Collection[str]) -> None:
        """Delete the keys of orphaned machines that were destroyed, once no provider lists them any more."""
        known = self._store.known().values()
        ended = [one for one in known if one.ended is not None and _concerns(one.fleet, name, exclude)]
        if not ended:
            return
        settles = max(provider.settles for provider in providers)
        listed = self._listed(providers)
        for one in ended:
            assert one.ended is not None
            if one.minion_id not in listed and self._operations.clock() >= one.ended + settles:
                self._forget(one.minion_id, one.fleet)
                self._store.write(removed=[("machine", one.minion_id)])

    def _forget(self, minion_id: str, name: str) -> None:
        """Delete the keys of a machine and, if its fleet is in the pillar, remove it from the traffic."""
        if name in self._fleets:
            self._operations.world(self._fleets[name], self._operations.ledger(name)).forget(minion_id)
        else:
            self._minions.forget(minion_id)

    def _log(self, what: str, orphan: Orphan, reason: str) -> None:
        entry = self._operations.audit_entry(what, orphan.minion_id, orphan.fleet, reason)
        self._operations.audit.write(entry)
        data = {"fleet": orphan.fleet, "minion_id": orphan.minion_id, "reason": reason, "at": entry.at}
        self._notify(f"{what} {orphan.minion_id}: {reason}", f"{orphan.fleet}/{what.replace(' ', '-')}", **data)


def _concerns(fleet: str, name: str, exclude: Collection[str]) -> bool:
    return name in ("all", fleet) and fleet not in exclude


def _data(decision: Decision, done: str) -> dict[str, Any]:
    orphan = decision.orphan
    known = {"what": orphan.what, "minion_id": orphan.minion_id, "fleet": orphan.fleet}
    return {**known, "reason": decision.reason, "done": done}
