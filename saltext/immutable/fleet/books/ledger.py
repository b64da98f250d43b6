"""What the store knows of one fleet: generations, rollouts, the journal, and an intent for every machine."""

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
Wish = Literal["in", "drain", "out"]


@dataclass(frozen=True)
class Generation:
    """A fleet with an image and launch settings."""

    fleet: str
    number: int
    image: str
    """Full digest."""
    provider: ProviderSpec
    created: float
    traffic: TrafficSpec | None = None
    """Who sent the visitors when it was last rolled out."""


@dataclass(frozen=True)
class Record:
    """What we want of one machine, written down before it is done."""

    minion_id: str
    fleet: str
    generation: int
    intent: Intent
    """``launch``: in doubt until the provider lists it. ``doomed``, ``failed``: it goes, in any case."""
    born: float
    ref: str | None = None
    ready_since: float | None = None
    reason: str = ""
    healthy_since: float | None = None
    """Since when nobody found it unhealthy."""
    traffic: Wish = "in"
    """What we want of those who send the visitors."""
    drain_since: float | None = None
    """When they stopped sending it new ones."""
    kept_until: float | None = None
    """How long it stays for a rollback."""

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
class News:
    """What others wrote about a fleet, its machines and its rollout meanwhile."""

    taints: Mapping[str, str]
    protections: Mapping[str, str]
    orders: Sequence[Order]
    size: int
    """How many machines are wanted: what an operator set, or what the pillar says."""


class Ledger:
    """The books of one fleet. Only who holds the fleet's lease may write."""

    def __init__(self, store: Store, fleet: str) -> None:
        self.fleet = fleet
        self._store = store

    @property
    def installation(self) -> str:
        """Return the id that our machines are tagged with."""
        return self._store.installation

    def lineage(self) -> list[int]:
        """Return the good generations: the last one runs now, the one before is what a rollback goes to."""
        return list(self._fleet()["lineage"])

    def size(self) -> int:
        """Return how many machines the fleet had when its last rollout ended."""
        return int(self._fleet()["size"])

    def old_size(self) -> int:
        """Return how many machines a rollout that begins now starts from.

        After one that was paused or aborted more may serve than when the last one ended: a scale from 3 to 10
        that stopped at 9 has 9 to lose.
        """
        ready = [record for record in self.records().values() if record.ready_since is not None]
        return max(self.size(), sum(record.traffic == "in" and not record.doomed for record in ready))

    def generations(self) -> dict[int, Generation]:
        """Return all generations by number, the oldest first."""
        rows = self._rows(queries.GENERATIONS)
        return {row["number"]: _generation(row) for row in rows}

    def generation(self, number: int) -> Generation:
        """Return one generation."""
        known = self.generations()
        if number not in known:
            there = ", ".join(map(str, known)) or "none"
            raise SaltInvocationError(f"fleet {self.fleet} has no generation {number}; there are: {there}")
        return known[number]

    def rollouts(self) -> list[Rollout]:
        """Return all rollouts, the newest first."""
        return [Rollout(**row) for row in self._rows(queries.ROLLOUTS)]

    def unfinished(self) -> Rollout | None:
        """Return the rollout that was interrupted or paused."""
        found = [Rollout(**row) for row in self._rows(queries.UNFINISHED_ROLLOUT)]
        return found[0] if found else None

    def rollout(self, number: int) -> Rollout:
        """Return one rollout."""
        query = sa.select(rollouts).where(rollouts.c.fleet == self.fleet, rollouts.c.id == number)
        return Rollout(**self._rows(query)[0])

    def left_halfway(self) -> bool:
        """Tell whether the last roll was given up while machines of its generation were there: they still are."""
        last = next((one for one in self.rollouts() if one.kind in ("roll", "rollback", "destroy")), None)
        if last is None or last.kind != "roll" or last.outcome != "aborted" or last.target in self.lineage()[-1:]:
            return False
        return any(one.generation == last.target and not one.doomed for one in self.records().values())

    def entries(self, rollout: int) -> list[Entry]:
        """Return the timeline of a rollout."""
        columns = (journal.c.at, journal.c.what, journal.c.minion_id, journal.c.reason)
        query = sa.select(*columns).where(journal.c.rollout == rollout).order_by(journal.c.id)
        return [Entry(**row) for row in self._rows(query)]

    def records(self) -> dict[str, Record]:
        """Return the machines by minion id, the oldest first."""
        return {row["minion_id"]: Record(**row) for row in self._rows(queries.MACHINES)}

    def tainted(self) -> dict[str, str]:
        """Return why machines are no longer what their image says, by minion id."""
        columns = (taints.c.minion_id, taints.c.reason)
        query = sa.select(*columns).where(taints.c.fleet == self.fleet).order_by(taints.c.at, taints.c.kind)
        found: dict[str, str] = {}
        for row in self._rows(query):
            found.setdefault(row["minion_id"], row["reason"])
        return found

    def protected(self) -> dict[str, str]:
        """Return why machines must not be taken away, by minion id."""
        query = sa.select(protections.c.minion_id, protections.c.reason).where(protections.c.fleet == self.fleet)
        return {row["minion_id"]: row["reason"] for row in self._rows(query)}

    def protect(self, minion_id: str, reason: str, who: str | None, now: float) -> None:
        """Write down that a machine must not be taken away; this needs no lease."""
        row = {"minion_id": minion_id, "fleet": self.fleet, "at": now, "reason": reason, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.delete(protections).where(protections.c.minion_id == minion_id))
            tx.execute(sa.insert(protections).values(row))

    def unprotect(self, minion_id: str) -> None:
        """Take that back; this needs no lease."""
        with self._store.write() as tx:
            tx.execute(sa.delete(protections).where(protections.c.minion_id == minion_id))

    def orders(self) -> list[Order]:
        """Return the orders that nobody has taken up yet, the oldest first."""
        columns = [orders.c[name] for name in ("id", "rollout", "what", "at", "reason", "who", "step")]
        where = (orders.c.fleet == self.fleet, orders.c.taken.is_(None))
        return [Order(**row) for row in self._rows(sa.select(*columns).where(*where).order_by(orders.c.id))]

    def order(self, rollout: Rollout, what: str, reason: str, who: str | None, now: float) -> None:
        """Write down an order; this needs no lease."""
        row = {"fleet": self.fleet, "rollout": rollout.id, "what": what, "at": now, "reason": reason, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.insert(orders).values(**row, step=rollout.step))

    def forget_pauses(self, lease: Lease, rollout: Rollout, now: float) -> None:
        """Take up what asked for a pause that is over: it must not pause what is resumed."""
        where = (orders.c.rollout == rollout.id, orders.c.what == "pause", orders.c.taken.is_(None))
        with lease.write() as tx:
            tx.execute(sa.update(orders).where(*where).values(taken=now))

    def resize(self, size: int, instead_of: int, who: str | None, now: float) -> None:
        """Set a size in place of the pillar's; this needs no lease."""
        row = {"fleet": self.fleet, "size": size, "instead_of": instead_of, "at": now, "who": who}
        with self._store.write() as tx:
            tx.execute(sa.delete(sizes).where(sizes.c.fleet == self.fleet))
            if size != instead_of:
                tx.execute(sa.insert(sizes).values(row))

    def forget_size(self, lease: Lease, declared: int) -> None:
        """Forget a size that was set in place of another one than the pillar's: it must not come back with that."""
        where = (sizes.c.fleet == self.fleet, sizes.c.instead_of != declared)
        if self._rows(sa.select(sizes.c.size).where(*where)):
            with lease.write() as tx:
                tx.execute(sa.delete(sizes).where(*where))

    def wanted_size(self, declared: int) -> int:
        """Return the size that counts: an operator's, as long as the pillar's is what it was then."""
        rows = self._rows(queries.SIZE, declared=declared)
        return int(rows[0]["size"]) if rows else declared

    def sized(self, fleet: Fleet) -> Fleet:
        """Return the fleet with the size that counts."""
        return replace(fleet, size=self.wanted_size(fleet.size))

    def news(self, declared: int) -> News:
        """Return what others wrote meanwhile."""
        with self._store.read() as connection:
            rows = connection.execute(queries.NEWS, {"of_fleet": self.fleet}).all()
        if not rows:
            return News({}, {}, (), declared)
        told: dict[str, list[Any]] = {}
        for row in rows:
            told.setdefault(row.told, []).append(row)
        first = sorted(told.get("taint", ()), key=lambda row: (row.at, row.word), reverse=True)
        return News(
            {row.minion_id: row.reason for row in first},
            {row.minion_id: row.reason for row in told.get("protection", ())},
            [
                Order(row.id, row.number, row.word, row.at, row.reason, row.who, row.step)
                for row in sorted(told.get("order", ()), key=lambda row: row.id)
            ],
            next((row.number for row in told.get("size", ()) if row.id == declared), declared),
        )

    def pin(
        self, lease: Lease, image: str, provider: ProviderSpec, now: float, traffic: TrafficSpec | None = None
    ) -> Generation:
        """Return the generation of an image and launch settings: the newest one or one more."""
        newest = max(self.generations().values(), key=lambda one: one.number, default=None)
        if newest and (newest.image, newest.provider, newest.traffic) == (image, provider, traffic):
            return newest
        routed = None if traffic is None else {"name": traffic.name, "settings": dict(traffic.settings)}
        if newest and (newest.image, newest.provider) == (image, provider):
            where = (generations.c.fleet == self.fleet, generations.c.number == newest.number)
            with lease.write() as tx:
                tx.execute(sa.update(generations).where(*where).values(traffic=routed))
            return replace(newest, traffic=traffic)
        number = newest.number + 1 if newest else 1
        row = {"fleet": self.fleet, "number": number, "image": image, "created": now, "traffic": routed}
        with lease.write() as tx:
            values = {**row, "provider": provider.name, "settings": dict(provider.settings)}
            tx.execute(sa.insert(generations).values(values))
        return Generation(self.fleet, number, image, provider, now, traffic)

    def begin(self, lease: Lease, kind: Kind, target: int | None, now: float, replaces: int = 0) -> Rollout:
        """Start a rollout; one that was interrupted or paused ends aborted by it."""
        lineage = self.lineage()
        source = lineage[-1] if lineage else None
        rollout = Rollout(
            0, self.fleet, kind, source, target, self.old_size(), started=now, progress_at=now, replaces=replaces
        )
        values = asdict(rollout)
        del values["id"]
        where = sa.and_(rollouts.c.fleet == self.fleet, UNFINISHED)
        why = f"a {kind} took its place"
        with lease.write() as tx:
            self._require_image(tx, target)
            tx.execute(sa.update(rollouts).where(where).values(outcome="aborted", ended=now, reason=why))
            number = tx.execute(sa.insert(rollouts).values(values).returning(rollouts.c.id)).scalar_one()
        return replace(rollout, id=number)

    def _require_image(self, tx: sa.Connection, number: int | None) -> None:
        """Raise where the image that a rollout would go to was deleted since it was chosen; now it is needed."""
        where = (generations.c.fleet == self.fleet, generations.c.number == number)
        image = tx.execute(sa.select(generations.c.image).where(*where)).scalar()
        if image and tx.execute(sa.select(images.c.digest).where(images.c.digest == image)).first() is None:
            raise CommandExecutionError(
                f"image {image[:12]} of generation {number} of fleet {self.fleet} was deleted meanwhile; bake it again"
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
        """Write one step: the rollout, what is intended with its machines, and the journal, all or nothing.

        ``reserved``: whether anything may be reserved for it, which from here on is in the books.
        """
        values = {**vars(rollout), "failures": dict(rollout.failures)}
        with lease.write() as tx:
            if taken:
                tx.execute(sa.update(orders).where(orders.c.id.in_(taken)).values(taken=rollout.progress_at))
            left = [{"of_minion": minion_id} for minion_id in gone]
            for statement, rows in (
                (queries.DROP_TAINTS, left),
                (queries.DROP_PROTECTIONS, left),
                (queries.DROP_MACHINE, [*left, *({"of_minion": record.minion_id} for record in changed)]),
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
        """Write down what the fleet runs now and how many machines it has."""
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
            rows = connection.execute(query, {"of_fleet": self.fleet, **values})
            return [dict(row) for row in rows.mappings()]


def fleets_with_machines(store: Store) -> set[str]:
    """Return the fleets that have machines, in the pillar or not."""
    with store.read() as connection:
        return set(connection.execute(sa.select(machines.c.fleet).distinct()).scalars())


def extended(lineage: Sequence[int], rollout: Rollout) -> list[int]:
    """Return the good generations after a rollout is done: [1, 2] rolled to 3 is [1, 2, 3], and rolled back
    from there to 1 it is [1]: what was rolled back from is no place to go back to.
    """
    if rollout.target is None:
        return []
    if rollout.target in lineage and rollout.kind == "rollback":
        return list(lineage[: lineage.index(rollout.target) + 1])
    return [number for number in lineage if number != rollout.target] + [rollout.target]


def _generation(row: Mapping[str, Any]) -> Generation:
    provider = ProviderSpec(row["provider"], row["settings"])
    traffic = row["traffic"] and TrafficSpec(row["traffic"]["name"], row["traffic"]["settings"])
    return Generation(row["fleet"], row["number"], row["image"], provider, row["created"], traffic or None)
