"""Which machines are no longer what their image says, and what was done outside rollouts: by whom, when and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError
from sqlalchemy.exc import IntegrityError

from saltext.immutable.store import Lease, Store
from saltext.immutable.store.schema import deeds, machines, taints

Kind = Literal["hand", "drift", "break_glass", "sick"]


@dataclass(frozen=True)
class Deed:
    """One line of the journal of what is done outside rollouts."""

    at: float
    fleet: str | None
    minion_id: str | None
    what: str
    reason: str
    who: str | None = None
    """The user that Salt knows."""
    jid: str | None = None


@dataclass(frozen=True)
class Taint:
    """Why a machine has to be replaced."""

    minion_id: str
    fleet: str | None
    """None: no fleet launched it, it was sealed by hand."""
    at: float
    kind: Kind
    reason: str
    who: str | None = None


class Taints:
    """The taints of all machines, and the deeds."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, fleet: str | None) -> dict[str, list[Taint]]:
        """Return the taints of a fleet's machines (None: of adopted ones) by minion id, the oldest first."""
        found: dict[str, list[Taint]] = {}
        for row in self._rows(sa.select(taints).where(taints.c.fleet == fleet).order_by(taints.c.at, taints.c.kind)):
            found.setdefault(row["minion_id"], []).append(Taint(**row))
        return found

    def on(self, minion_id: str) -> list[Taint]:
        """Return the taints of one machine, the oldest first."""
        query = sa.select(taints).where(taints.c.minion_id == minion_id)
        return [Taint(**row) for row in self._rows(query.order_by(taints.c.at, taints.c.kind))]

    def fleet_of(self, minion_id: str) -> str | None:
        """Return the fleet whose book names a machine."""
        rows = self._rows(sa.select(machines.c.fleet).where(machines.c.minion_id == minion_id))
        return rows[0]["fleet"] if rows else None

    def add(self, kind: Kind, deed: Deed) -> bool:
        """Taint a machine and write down the deed; tell whether it was not tainted in this way already.

        What opens a machine is a new deed each time; other taints are written down once. A taint ends with its
        machine, so one that its fleet has let go of meanwhile gets none.
        """
        try:
            return self._add(kind, deed)
        except IntegrityError:  # somebody else was first, where the database lets two write at once
            return self._add(kind, deed)

    def _add(self, kind: Kind, deed: Deed) -> bool:
        assert deed.minion_id is not None
        there = sa.select(machines.c.minion_id).where(machines.c.minion_id == deed.minion_id)
        where = (taints.c.minion_id == deed.minion_id, taints.c.kind == kind)
        with self._store.write() as tx:
            gone = deed.fleet is not None and not tx.execute(there).first()
            new = not gone and not tx.execute(sa.select(taints).where(*where)).first()
            if new:
                taint = Taint(deed.minion_id, deed.fleet, deed.at, kind, deed.reason, deed.who)
                tx.execute(sa.insert(taints).values(asdict(taint)))
            if new or kind == "break_glass":
                tx.execute(sa.insert(deeds).values(asdict(deed)))
        return new

    def remove(self, deed: Deed) -> bool:
        """Untaint a machine and write down the deed; tell whether it was tainted. An opened machine stays tainted."""
        where = taints.c.minion_id == deed.minion_id
        with self._store.write() as tx:
            kinds = set(tx.execute(sa.select(taints.c.kind).where(where)).scalars())
            if "break_glass" in kinds:
                raise CommandExecutionError(
                    f"{deed.minion_id} was opened by break-glass: nobody can vouch for it any more; "
                    + (f"`salt-run fleet.roll {deed.fleet}` replaces it" if deed.fleet else "replace it")
                )
            if kinds:
                tx.execute(sa.delete(taints).where(where))
                tx.execute(sa.insert(deeds).values(asdict(deed)))
        return bool(kinds)

    def note(self, deed: Deed, lease: Lease | None = None) -> None:
        """Write down a deed; one that needs a lease only while it is held."""
        with (lease or self._store).write() as tx:
            tx.execute(sa.insert(deeds).values(asdict(deed)))

    def note_change(self, deed: Deed, among: tuple[str, ...]) -> None:
        """Write down what a look at a machine told, unless the last such deed (one of ``among``) told the same."""
        last = self.last(str(deed.minion_id), among)
        if last is None or (last.what, last.reason) != (deed.what, deed.reason):
            self.note(deed)

    def last(self, minion_id: str, among: tuple[str, ...]) -> Deed | None:
        """Return the newest deed of these kinds that concerns a machine."""
        where = (deeds.c.minion_id == minion_id, deeds.c.what.in_(among))
        found = self._deeds(sa.select(deeds).where(*where).order_by(deeds.c.id.desc()).limit(1))
        return found[0] if found else None

    def last_of_fleet(self, fleet: str, among: tuple[str, ...]) -> Deed | None:
        """Return the newest deed of these kinds that concerns a fleet and none of its machines in particular."""
        where = (deeds.c.fleet == fleet, deeds.c.minion_id.is_(None), deeds.c.what.in_(among))
        found = self._deeds(sa.select(deeds).where(*where).order_by(deeds.c.id.desc()).limit(1))
        return found[0] if found else None

    def deeds(self, fleet: str | None) -> list[Deed]:
        """Return what was done to a fleet's machines (None: to adopted ones), the newest first."""
        return self._deeds(sa.select(deeds).where(deeds.c.fleet == fleet).order_by(deeds.c.id.desc()))

    def _deeds(self, query: sa.Select[Any]) -> list[Deed]:
        return [Deed(**{key: value for key, value in row.items() if key != "id"}) for row in self._rows(query)]

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._store.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
