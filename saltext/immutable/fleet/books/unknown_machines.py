"""What a store that is older than its machines does not know of them, and writing them back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from saltext.immutable.fleet.books import queries
from saltext.immutable.fleet.books.audit import AuditEntry, insert
from saltext.immutable.fleet.books.ledger import Generation, Ledger, Record, row_of
from saltext.immutable.store import Lease, Store
from saltext.immutable.store.schema import UNFINISHED, fleets, generations, journal, machines, orphans, rollouts


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


def write_back(
    ledger: Ledger,
    lease: Lease,
    records: Sequence[Record],
    missing: Sequence[Generation],
    current: int | None,
    entries: Sequence[AuditEntry],
) -> None:
    """Write machines in one transaction, with the generations that are missing, and entries of the audit log.

    ``current``: the good generation, for a fleet that has none in the store. If there are entries, the store was older
    than its machines: an unfinished rollout keeps as many of them as if it had begun with all, and a destruction of the
    fleet that had begun then ends here.
    """
    lineage, there = ledger.lineage(), {**ledger.records(), **{one.minion_id: one for one in records}}
    serving = sum(one.ready_since is not None and one.traffic == "in" and not one.doomed for one in there.values())
    with lease.write() as tx:
        for one in missing:
            tx.execute(sa.insert(generations).values(row_of(one)))
        tx.execute(queries.DROP_MACHINE, [{"of_minion": record.minion_id} for record in records])
        tx.execute(queries.ADD_MACHINE, [vars(record) for record in records])
        for entry in entries:
            insert(tx, entry)
        if not lineage and current is not None:
            tx.execute(sa.delete(fleets).where(fleets.c.name == ledger.fleet))
            tx.execute(sa.insert(fleets).values(name=ledger.fleet, lineage=[current], size=serving))
        if entries:
            where = (rollouts.c.fleet == ledger.fleet, UNFINISHED, rollouts.c.old_size < serving)
            tx.execute(sa.update(rollouts).where(*where).values(old_size=serving))
            ending = {"outcome": "aborted", "ended": entries[0].at, "reason": "the store is older than the machines"}
            where = (rollouts.c.fleet == ledger.fleet, UNFINISHED, rollouts.c.kind == "destroy")
            tx.execute(sa.update(rollouts).where(*where).values(ending))
