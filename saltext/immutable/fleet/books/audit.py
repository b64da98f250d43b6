"""The audit log: what was done to fleets and machines outside rollouts, by whom, when and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from saltext.immutable.store import Lease, Store
from saltext.immutable.store.schema import deeds


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the audit log. (``fleet.history`` shows it under ``deeds``.)"""

    at: float
    """Seconds since the epoch."""
    fleet: str | None
    """None: of a machine that no fleet launched."""
    minion_id: str | None
    """None: of the fleet as a whole."""
    what: str
    reason: str
    who: str | None = None
    """The user that Salt knows."""
    jid: str | None = None


class AuditLog:
    """The audit log of all fleets."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, entry: AuditEntry, lease: Lease | None = None) -> None:
        """Add an entry; with a ``lease``, only while it is held (else raise ``Fenced``)."""
        with (lease or self._store).write() as tx:
            insert(tx, entry)

    def write_change(self, entry: AuditEntry, kinds: Collection[str]) -> None:
        """Add an entry about a machine unless its last entry among these ``kinds`` says the same."""
        last = self.last(str(entry.minion_id), kinds)
        if last is None or (last.what, last.reason) != (entry.what, entry.reason):
            self.write(entry)

    def last(self, minion_id: str, kinds: Collection[str]) -> AuditEntry | None:
        """Return the newest entry of these kinds about a machine."""
        return self._newest(deeds.c.minion_id == minion_id, deeds.c.what.in_(kinds))

    def last_of_fleet(self, fleet: str, kinds: Collection[str]) -> AuditEntry | None:
        """Return the newest entry of these kinds about a fleet as a whole."""
        return self._newest(deeds.c.fleet == fleet, deeds.c.minion_id.is_(None), deeds.c.what.in_(kinds))

    def entries(self, fleet: str | None) -> list[AuditEntry]:
        """Return the entries about a fleet and its machines (None: about adopted ones), the newest first."""
        return self._entries(sa.select(deeds).where(deeds.c.fleet == fleet).order_by(deeds.c.id.desc()))

    def _newest(self, *where: sa.ColumnElement[bool]) -> AuditEntry | None:
        found = self._entries(sa.select(deeds).where(*where).order_by(deeds.c.id.desc()).limit(1))
        return found[0] if found else None

    def _entries(self, query: sa.Select[Any]) -> list[AuditEntry]:
        with self._store.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [AuditEntry(**{key: value for key, value in row.items() if key != "id"}) for row in rows]


def insert(tx: sa.Connection, entry: AuditEntry) -> None:
    """Add an entry within the caller's transaction."""
    tx.execute(sa.insert(deeds).values(asdict(entry)))
