"""Tainted machines: they no longer match their image, and the next roll replaces them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError
from sqlalchemy.exc import IntegrityError

from saltext.immutable.fleet.books.audit import AuditEntry, insert
from saltext.immutable.store import Store
from saltext.immutable.store.schema import machines, taints

Kind = Literal["hand", "drift", "break_glass", "sick"]


@dataclass(frozen=True)
class Taint:
    """A taint of one machine."""

    minion_id: str
    fleet: str | None
    """None: no fleet launched the machine; it was adopted."""
    at: float
    kind: Kind
    reason: str
    who: str | None = None


class Taints:
    """The taints of all machines."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of_fleet(self, fleet: str | None) -> dict[str, list[Taint]]:
        """Return minion id to taints, the oldest first, of a fleet's machines (None: of adopted ones)."""
        found: dict[str, list[Taint]] = {}
        for row in self._rows(sa.select(taints).where(taints.c.fleet == fleet).order_by(taints.c.at, taints.c.kind)):
            found.setdefault(row["minion_id"], []).append(Taint(**row))
        return found

    def of_machine(self, minion_id: str) -> list[Taint]:
        """Return the taints of one machine, the oldest first."""
        query = sa.select(taints).where(taints.c.minion_id == minion_id)
        return [Taint(**row) for row in self._rows(query.order_by(taints.c.at, taints.c.kind))]

    def fleet_of(self, minion_id: str) -> str | None:
        """Return the fleet of a machine in the store; None if no fleet has it."""
        rows = self._rows(sa.select(machines.c.fleet).where(machines.c.minion_id == minion_id))
        return rows[0]["fleet"] if rows else None

    def add(self, kind: Kind, entry: AuditEntry) -> bool:
        """Taint a machine and write the audit entry; return whether the machine had no taint of this kind yet.

        A second taint of the same kind is ignored, but each break-glass is written to the audit log. A machine of a
        fleet that is gone meanwhile is not tainted, since a taint ends with its machine.
        """
        try:
            return self._add(kind, entry)
        except IntegrityError:  # another process wrote the same taint at the same time (PostgreSQL allows that)
            return self._add(kind, entry)

    def _add(self, kind: Kind, entry: AuditEntry) -> bool:
        assert entry.minion_id is not None
        machine = sa.select(machines.c.minion_id).where(machines.c.minion_id == entry.minion_id)
        where = (taints.c.minion_id == entry.minion_id, taints.c.kind == kind)
        with self._store.write() as tx:
            gone = entry.fleet is not None and not tx.execute(machine).first()
            new = not gone and not tx.execute(sa.select(taints).where(*where)).first()
            if new:
                taint = Taint(entry.minion_id, entry.fleet, entry.at, kind, entry.reason, entry.who)
                tx.execute(sa.insert(taints).values(asdict(taint)))
            if new or kind == "break_glass":
                insert(tx, entry)
        return new

    def remove(self, entry: AuditEntry) -> bool:
        """Remove all taints of a machine and write the audit entry; return whether it had any.

        Raises ``CommandExecutionError`` if the machine was opened by break-glass: it stays tainted.
        """
        where = taints.c.minion_id == entry.minion_id
        with self._store.write() as tx:
            kinds = set(tx.execute(sa.select(taints.c.kind).where(where)).scalars())
            if "break_glass" in kinds:
                raise CommandExecutionError(
                    f"{entry.minion_id} was opened by break-glass, so it stays tainted; "
                    + (f"`salt-run fleet.roll {entry.fleet}` replaces it" if entry.fleet else "replace it")
                )
            if kinds:
                tx.execute(sa.delete(taints).where(where))
                insert(tx, entry)
        return bool(kinds)

    def withdraw(self, kind: Kind, entry: AuditEntry) -> None:
        """Remove a machine's taint of one kind, whose reason has gone, and write the audit entry."""
        with self._store.write() as tx:
            where = (taints.c.minion_id == entry.minion_id, taints.c.kind == kind)
            if tx.execute(sa.delete(taints).where(*where)).rowcount:
                insert(tx, entry)

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
