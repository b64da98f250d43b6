"""The ledger of one fleet in the store: generations, rollouts, the journal, and the intent for each machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books import queries
from saltext.immutable.fleet.decide.orders import Order
from saltext.immutable.fleet.decide.state import Kind, Rollout
from saltext.immutable.spec.model import Fleet, ProviderSpec, TrafficSpec
from saltext.immutable.store import Lease, Store
from saltext.immutable.store.schema import (
    UNFINISHED,
    fleets,
    generations,
    images,
    journal,
    machines,
    orders,
    protections,
    rollouts,
    sizes,
    taints,
)

Intent = Literal["launch", "launched", "doomed", "failed"]
TrafficIntent = Literal["in", "drain", "out"]


@dataclass(frozen=True)
class Generation:
    """A fleet's image and launch settings, numbered."""

    fleet: str
    number: int
    image: str
    """Digest, in full."""
    provider: ProviderSpec
    created: float
    traffic: TrafficSpec | None = None
    """The traffic adapter when it was last rolled out."""


@dataclass(frozen=True)
class Record:
    """The intent for one machine, written before any call is made."""

    minion_id: str
    fleet: str
    generation: int
    intent: Intent
    """``launch``: in doubt until the provider lists it. ``doomed``, ``failed``: it will be destroyed in any case."""
    born: float
    ref: str | None = None
    ready_since: float | None = None
    reason: str = ""
    healthy_since: float | None = None
    """Since when it has not been found unhealthy."""
    traffic: TrafficIntent = "in"
    """What the traffic adapter should do with it."""
    drain_since: float | None = None
    """When the traffic adapter stopped sending it new sessions."""
    kept_until: float | None = None
    """Until when it is kept for a rollback."""
    restarted: float | None = None
    """`Instance.restarted` when it was last healthy: another value means that its host has booted since."""

    @property
    def doomed(self) -> bool:
        """Tell whether there is an unresolved order to destroy it."""
        return self.intent in ("doomed", "failed")


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    at: float
    what: str
    minion_id: str | None
    reason: str


@dataclass(frozen=True)
class Updates:
    """What other processes wrote about a fleet: read by the driver of its rollout."""

    taints: Mapping[str, str]
    """Minion id to reason."""
    protections: Mapping[str, str]
    """Minion id to reason."""
    orders: Sequence[Order]
    """Those that no driver has applied yet, the oldest first."""
    size: int
    """The effective size: the one that an operator set, or the pillar's."""


class Ledger:
    """The ledger of one fleet. Only the holder of the fleet's lease may write, where nothing else is said."""

    def __init__(self, store: Store, fleet: str) -> None:
        self.fleet = fleet
        self._store = store

    @property
    def installation(self) -> str:
        """Return the installation id that the machines of this master are tagged with."""
        return self._store.installation

    def lineage(self) -> list[int]:
        """Return the good generations: the last one is current, a rollback goes to the one before."""
        return list(self._fleet()["lineage"])

    def size(self) -> int:
        """Return how many machines the fleet had when its last rollout ended."""
        return int(self._fleet()["size"])

    def old_size(self) -> int:
        """Return the number of machines at the start of a rollout that begins now.

        After a paused or aborted rollout more machines may serve than when the last one ended: after a scale from 3 to
        10 that stopped at 9, the old size is 9.
        """
        ready = [record for record in self.records().values() if record.ready_since is not None]
        return max(self.size(), sum(record.traffic == "in" and not record.doomed for record in ready))

    def generations(self) -> dict[int, Generation]:
        """Return all generations by number, the oldest first."""
        rows = self._rows(queries.GENERATIONS)
        return {row["number"]: _generation(row) for row in rows}

    def generation(self, number: int) -> Generation:
        """Return one generation; raise ``SaltInvocationError``, with the known numbers, if there is none."""
        known = self.generations()
        if number not in known:
            numbers = ", ".join(map(str, known)) or "none"
            raise SaltInvocationError(f"fleet {self.fleet} has no generation {number}; there are: {numbers}")
        return known[number]

    def rollouts(self) -> list[Rollout]:
        """Return all rollouts, the newest first."""
        return [Rollout(**row) for row in self._rows(queries.ROLLOUTS)]

    def unfinished(self) -> Rollout | None:
        """Return the rollout that runs, or was interrupted or paused; None if there is none."""
        found = [Rollout(**row) for row in self._rows(queries.UNFINISHED_ROLLOUT)]
        return found[0] if found else None

    def rollout(self, number: int) -> Rollout:
        """Return one rollout."""
        query = sa.select(rollouts).where(rollouts.c.fleet == self.fleet, rollouts.c.id == number)
        return Rollout(**self._rows(query)[0])

    def left_halfway(self) -> bool:
        """Tell whether the last roll was aborted and the fleet still has machines of its generation."""
        last = next((one for one in self.rollouts() if one.kind in ("roll", "rollback", "destroy")), None)
        if last is None or last.kind != "roll" or last.outcome != "aborted" or last.target in self.lineage()[-1:]:
            return False
        return any(one.generation == last.target and not one.doomed for one in self.records().values())

    def entries(self, rollout: int) -> list[Entry]:
        """Return the journal of a rollout, the oldest entry first."""
        columns = (journal.c.at, journal.c.what, journal.c.minion_id, journal.c.reason)
        query = sa.select(*columns).where(journal.c.rollout == rollout).order_by(journal.c.id)
        return [Entry(**row) for row in self._rows(query)]

    def in_journal(self, ids: Collection[str]) -> set[str]:
        """Return those of the minion ids that the journal of this store names."""
        with self._store.read() as connection:
            return queries.among(connection, journal.c.minion_id, ids)

    def records(self) -> dict[str, Record]:
        """Return minion id to record of all machines, the oldest first."""
        return {row["minion_id"]: Record(**row) for row in self._rows(queries.MACHINES)}

    def tainted(self) -> dict[str, str]:
        """Return minion id to reason of the tainted machines."""
        columns = (taints.c.minion_id, taints.c.reason)
        query = sa.select(*columns).where(taints.c.fleet == self.fleet).order_by(taints.c.at, taints.c.kind)
        found: dict[str, str] = {}
        for row in self._rows(query):
            found.setdefault(row["minion_id"], row["reason"])
        return found

    def protected(self) -> dict[str, str]:
        """Return minion id to reason of the protected machines."""
        query = sa.select(protections.c.minion_id, protections.c.reason).where(protections.c.fleet == self.fleet)
        return {row["minion_id"]: row["reason"] for row in self._rows(query)}

    def protect(self, minion_id: str, reason: str, who: str | None, now: float) -> None:
        """Protect a machine. This needs no lease."""
        row = {"minion_id": minion_id, "fleet": self.fleet, "at": now, "reason": reason, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.delete(protections).where(protections.c.minion_id == minion_id))
            tx.execute(sa.insert(protections).values(row))

    def unprotect(self, minion_id: str) -> None:
        """End the protection of a machine. This needs no lease."""
        with self._store.write() as tx:
            tx.execute(sa.delete(protections).where(protections.c.minion_id == minion_id))

    def orders(self) -> list[Order]:
        """Return the orders that no driver has applied yet, the oldest first."""
        columns = [orders.c[name] for name in ("id", "rollout", "what", "at", "reason", "who", "step")]
        where = (orders.c.fleet == self.fleet, orders.c.taken.is_(None))
        return [Order(**row) for row in self._rows(sa.select(*columns).where(*where).order_by(orders.c.id))]

    def order(self, rollout: Rollout, what: str, reason: str, who: str | None, now: float) -> None:
        """Add an order of an operator to a rollout. This needs no lease."""
        row = {"fleet": self.fleet, "rollout": rollout.id, "what": what, "at": now, "reason": reason, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.insert(orders).values(**row, step=rollout.step))

    def drop_pauses(self, lease: Lease, rollout: Rollout, now: float) -> None:
        """Mark open orders to pause as applied, so that they do not pause a rollout that is resumed."""
        where = (orders.c.rollout == rollout.id, orders.c.what == "pause", orders.c.taken.is_(None))
        with lease.write() as tx:
            tx.execute(sa.update(orders).where(*where).values(taken=now))

    def resize(self, size: int, instead_of: int, who: str | None, now: float) -> None:
        """Set a size in place of the pillar's (``instead_of``). This needs no lease."""
        row = {"fleet": self.fleet, "size": size, "instead_of": instead_of, "at": now, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.delete(sizes).where(sizes.c.fleet == self.fleet))
            if size != instead_of:
                tx.execute(sa.insert(sizes).values(row))

    def drop_size(self, lease: Lease, declared: int) -> None:
        """Delete a size that was set in place of another pillar's size than ``declared``.

        Otherwise it would be effective again when the pillar returns to that size.
        """
        where = (sizes.c.fleet == self.fleet, sizes.c.instead_of != declared)
        if self._rows(sa.select(sizes.c.size).where(*where)):
            with lease.write() as tx:
                tx.execute(sa.delete(sizes).where(*where))

    def effective_size(self, declared: int) -> int:
        """Return the size that applies: an operator's, as long as the pillar's (``declared``) is what it was then."""
        rows = self._rows(queries.SIZE, declared=declared)
        return int(rows[0]["size"]) if rows else declared

    def with_effective_size(self, fleet: Fleet) -> Fleet:
        """Return the definition of a fleet with its effective size."""
        return replace(fleet, size=self.effective_size(fleet.size))

    def updates(self, declared: int) -> Updates:
        """Return what other processes wrote; ``declared``: the size in the pillar."""
        with self._store.read() as connection:
            rows = connection.execute(queries.UPDATES, {"of_fleet": self.fleet}).all()
        if not rows:
            return Updates({}, {}, (), declared)
        by_kind: dict[str, list[Any]] = {}
        for row in rows:
            by_kind.setdefault(row.kind, []).append(row)
        newest_first = sorted(by_kind.get("taint", ()), key=lambda row: (row.at, row.word), reverse=True)
        return Updates(
            {row.minion_id: row.reason for row in newest_first},
            {row.minion_id: row.reason for row in by_kind.get("protection", ())},
            [
                Order(row.id, row.number, row.word, row.at, row.reason, row.who, row.step)
                for row in sorted(by_kind.get("order", ()), key=lambda row: row.id)
            ],
            next((row.number for row in by_kind.get("size", ()) if row.id == declared), declared),
        )

    def pin(
        self, lease: Lease, image: str, provider: ProviderSpec, now: float, traffic: TrafficSpec | None = None
    ) -> Generation:
        """Return the generation of an image and launch settings: the newest one if it has them, or a new one."""
        newest = max(self.generations().values(), key=lambda one: one.number, default=None)
        if newest and (newest.image, newest.provider, newest.traffic) == (image, provider, traffic):
            return newest
        made = Generation(self.fleet, newest.number + 1 if newest else 1, image, provider, now, traffic)
        change: sa.Insert | sa.Update = sa.insert(generations).values(row_of(made))
        if newest and (newest.image, newest.provider) == (image, provider):
            made, where = replace(newest, traffic=traffic), generations.c.number == newest.number
            change = sa.update(generations).where(generations.c.fleet == self.fleet, where).values(row_of(made))
        with lease.write() as tx:
            tx.execute(change)
        return made

    def begin(self, lease: Lease, kind: Kind, target: int | None, now: float, replaces: int = 0) -> Rollout:
        """Add a rollout; an interrupted or paused one ends as aborted.

        ``replaces``: how many machines it will launch. Raises ``CommandExecutionError`` if its image was deleted.
        """
        lineage = self.lineage()
        source = lineage[-1] if lineage else None
        rollout = Rollout(
            0, self.fleet, kind, source, target, self.old_size(), started=now, progress_at=now, replaces=replaces
        )
        values = {name: value for name, value in asdict(rollout).items() if name != "id"}
        where = sa.and_(rollouts.c.fleet == self.fleet, UNFINISHED)
        why = f"a {kind} took its place"
        with lease.write() as tx:
            self._require_image(tx, target)
            tx.execute(sa.update(rollouts).where(where).values(outcome="aborted", ended=now, reason=why))
            number = tx.execute(sa.insert(rollouts).values(values).returning(rollouts.c.id)).scalar_one()
        return replace(rollout, id=number)

    def _require_image(self, tx: sa.Connection, number: int | None) -> None:
        """Raise if the target image was deleted since it was chosen. From here on it is in use and cannot be."""
        where = (generations.c.fleet == self.fleet, generations.c.number == number)
        image = tx.execute(sa.select(generations.c.image).where(*where)).scalar()
        if image and tx.execute(sa.select(images.c.digest).where(images.c.digest == image)).first() is None:
            raise CommandExecutionError(
                f"image {image[:12]} of generation {number} of fleet {self.fleet} was deleted, or the store is older; "
                "`salt-run image.bake <recipe>` bakes another, `salt-run fleet.adopt_store` reads the builder's"
            )

    def commit(
        self,
        lease: Lease,
        rollout: Rollout,
        changed: Collection[Record] = (),
        gone: Collection[str] = (),
        entries: Sequence[Entry] = (),
        taken: Collection[int] = (),
        reserved: bool = True,
    ) -> None:
        """Write one step in one transaction: the rollout, the intents for its machines, and journal entries.

        ``changed``: records to write; ``gone``: minion ids to delete; ``taken``: ids of orders that were applied;
        ``reserved``: whether to drop the reservation of the fleet, because the records replace it.
        """
        values = {**vars(rollout), "failures": dict(rollout.failures)}
        with lease.write() as tx:
            if taken:
                tx.execute(sa.update(orders).where(orders.c.id.in_(taken)).values(taken=rollout.progress_at))
            deleted = [{"of_minion": minion_id} for minion_id in gone]
            for statement, rows in (
                (queries.DROP_TAINTS, deleted),
                (queries.DROP_PROTECTIONS, deleted),
                (queries.DROP_MACHINE, [*deleted, *({"of_minion": record.minion_id} for record in changed)]),
                (queries.DROP_RESERVATION, [{"of_fleet": self.fleet}] if reserved else []),
                (queries.ADD_MACHINE, [vars(record) for record in changed]),
                (queries.ADD_ENTRY, [{"rollout": rollout.id, **vars(entry)} for entry in entries]),
                (queries.CHANGE_ROLLOUT, [{**values, "of_rollout": rollout.id}]),
            ):
                if rows:
                    tx.execute(statement, rows)
            if rollout.outcome in ("done", "rolled back"):
                self._settle(tx, rollout)

    def _settle(self, tx: sa.Connection, rollout: Rollout) -> None:
        """Write the good generations and the size of the fleet after a rollout that ended well."""
        count = sa.select(sa.func.count()).where(
            machines.c.fleet == self.fleet,
            machines.c.intent.in_(("launch", "launched")),
            machines.c.kept_until.is_(None),
        )
        before = tx.execute(sa.select(fleets.c.lineage).where(fleets.c.name == self.fleet)).scalar() or []
        lineage = extended(before, rollout) if rollout.outcome == "done" else before
        tx.execute(sa.delete(fleets).where(fleets.c.name == self.fleet))
        row = {"name": self.fleet, "lineage": lineage, "size": tx.execute(count).scalar_one()}
        tx.execute(sa.insert(fleets).values(row))

    def _fleet(self) -> Mapping[str, Any]:
        rows = self._rows(queries.FLEET_ROW)
        return rows[0] if rows else {"lineage": [], "size": 0}

    def _rows(self, query: sa.Select[Any], **values: Any) -> list[dict[str, Any]]:
        with self._store.read() as connection:
            return [dict(row) for row in connection.execute(query, {"of_fleet": self.fleet, **values}).mappings()]


def fleets_with_machines(store: Store) -> set[str]:
    """Return the names of fleets that have machines, also of those that are not in the pillar."""
    with store.read() as connection:
        return set(connection.execute(sa.select(machines.c.fleet).distinct()).scalars())


def extended(lineage: Sequence[int], rollout: Rollout) -> list[int]:
    """Return the good generations after a rollout is done.

    [1, 2] rolled to 3 gives [1, 2, 3]; rolled back from there to 1 it gives [1].
    """
    if rollout.target is None:
        return []
    if rollout.target in lineage and rollout.kind == "rollback":
        return list(lineage[: lineage.index(rollout.target) + 1])
    return [number for number in lineage if number != rollout.target] + [rollout.target]


def row_of(one: Generation) -> dict[str, Any]:
    """Return a generation as the store has it."""
    traffic = one.traffic and {"name": one.traffic.name, "settings": dict(one.traffic.settings)}
    return {**vars(one), "provider": one.provider.name, "settings": dict(one.provider.settings), "traffic": traffic}


def _generation(row: Mapping[str, Any]) -> Generation:
    provider = ProviderSpec(row["provider"], row["settings"])
    traffic = row["traffic"] and TrafficSpec(row["traffic"]["name"], row["traffic"]["settings"])
    return Generation(row["fleet"], row["number"], row["image"], provider, row["created"], traffic or None)
