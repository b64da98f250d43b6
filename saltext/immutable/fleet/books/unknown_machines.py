"""What a store that is older than its machines does not know of them, and writing them back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from saltext.immutable.fleet.books import queries
from saltext.immutable.fleet.books.audit import AuditEntry, insert
from saltext.immutable.fleet.books.ledger import Generation, Ledger, Record, row_of
from saltext.immutable.fleet.decide.generations import lineage_to
from saltext.immutable.store import Lease, Store
from saltext.immutable.store.schema import UNFINISHED, fleets, generations, journal, machines, orphans, rollouts, sizes


@dataclass(frozen=True)
class Resized:
    """A size that is set in place of the pillar's (``instead_of``)."""

    size: int
    instead_of: int
    who: str | None


def never_known(store: Store, ids: Collection[str]) -> list[str]:
    """Return those of the minion ids that this store never knew: it is older than their machines.

    A machine that the journal names was removed from the books by a rollout: what is left of it has to go.
    """
    with store.read() as connection:
        known = queries.among(connection, machines.c.minion_id, ids)
        known |= queries.among(connection, journal.c.minion_id, ids)
        ended = sa.select(orphans.c.minion_id).where(orphans.c.ended.is_not(None))
        known.update(connection.execute(ended).scalars())
    return [one for one in ids if one not in known]


def add_way_back(ledger: Ledger, lease: Lease, before: Generation) -> None:
    """Write the generation before the only good one, so that there is one to roll back to."""
    lineage = [before.number, *ledger.lineage()]
    with lease.write() as tx:
        tx.execute(sa.insert(generations).values(row_of(before)))
        tx.execute(sa.update(fleets).where(fleets.c.name == ledger.fleet).values(lineage=lineage))


def write_back(
    ledger: Ledger,
    lease: Lease,
    records: Sequence[Record],
    missing: Sequence[Generation],
    current: int | None,
    entries: Sequence[AuditEntry],
    resized: Resized | None = None,
) -> None:
    """Write machines in one transaction, with the generations that are missing, and entries of the audit log.

    ``current``: the generation that most of the machines run. If there are entries, the store was older than its
    machines: that generation is the good one, and a rollout that had not ended then belongs to a time before them. It
    ends here, whatever it was, since to carry it on would replace them by what was wanted once.
    """
    lineage, there = ledger.lineage(), {**ledger.records(), **{one.minion_id: one for one in records}}
    serving = sum(one.ready_since is not None and one.traffic == "in" and not one.doomed for one in there.values())
    good = lineage if current is None else lineage_to(lineage, current)
    with lease.write() as tx:
        for one in missing:
            tx.execute(sa.insert(generations).values(row_of(one)))
        tx.execute(queries.DROP_MACHINE, [{"of_minion": record.minion_id} for record in records])
        tx.execute(queries.ADD_MACHINE, [vars(record) for record in records])
        for entry in entries:
            insert(tx, entry)
        if resized is not None:
            tx.execute(sa.delete(sizes).where(sizes.c.fleet == ledger.fleet))
            if resized.size != resized.instead_of:
                row = {"fleet": ledger.fleet, "at": entries[0].at, **vars(resized)}
                tx.execute(sa.insert(sizes).values(row))
        if good != lineage:
            tx.execute(sa.delete(fleets).where(fleets.c.name == ledger.fleet))
            tx.execute(sa.insert(fleets).values(name=ledger.fleet, lineage=good, size=serving))
        if entries:
            ending = {"outcome": "aborted", "ended": entries[0].at, "reason": "the store is older than the machines"}
            where = (rollouts.c.fleet == ledger.fleet, UNFINISHED)
            tx.execute(sa.update(rollouts).where(*where).values(ending))
