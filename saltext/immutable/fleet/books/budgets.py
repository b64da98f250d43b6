"""Budgets: how many machines may be launched and disrupted at once, in one fleet and in all fleets together.

Launches are machines that were launched and are not ready yet; disruptions are machines that have served and are being
removed. Both are counted in the store. A driver reserves what it is about to begin until it has written that down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from saltext.immutable.fleet.books import queries
from saltext.immutable.spec.model import Amount, Budgets
from saltext.immutable.store import Lease
from saltext.immutable.store.schema import machines, meta, reservations

RESERVED_FOR = 60.0
"""Seconds after which a reservation is void: its process must have died."""


@dataclass(frozen=True)
class Need:
    """How many launches and disruptions a plan would begin."""

    launches: int = 0
    disruptions: int = 0


@dataclass(frozen=True)
class Budget:
    """The budgets that apply to one fleet."""

    fleet: str
    own: Budgets = Budgets()
    all_fleets: Budgets = Budgets()

    def __bool__(self) -> bool:
        return (self.own, self.all_fleets) != (Budgets(), Budgets())

    def reserve(self, lease: Lease, need: Need, size: int, now: float) -> Need:
        """Reserve as much of ``need`` as the budgets allow, and return what was reserved.

        ``size``: of the fleet, for percentages; ``now``: seconds since the epoch.
        """
        with lease.write() as tx:
            # Locks a row, so that transactions of two fleets run one after the other and never share the last place.
            tx.execute(_LOCK)
            tx.execute(queries.DROP_RESERVATION, {"of_fleet": self.fleet})
            granted = Need(
                min(need.launches, self._room(tx, "launches", size, now)),
                min(need.disruptions, self._room(tx, "disruptions", size, now)),
            )
            tx.execute(sa.insert(reservations).values(fleet=self.fleet, at=now, **vars(granted)))
        return granted

    def _room(self, tx: sa.Connection, what: str, size: int, now: float) -> int:
        own, common = _number(getattr(self.own, what), size), _number(getattr(self.all_fleets, what), 0)
        room = 1 << 30
        if own is not None:
            room = own - _under_way(tx, what, self.fleet)
        if common is not None:
            times = {"after": now - RESERVED_FOR, "before": now + RESERVED_FOR}
            others = tx.execute(_RESERVED[what], times).scalar_one()
            room = min(room, common - _under_way(tx, what, None) - others)
        return max(0, room)


def _number(limit: Amount | None, size: int) -> int | None:
    """Return a budget as a number of machines: a percentage is rounded down, to 1 at least."""
    return None if limit is None else max(1, limit.down(size))


def _under_way(tx: sa.Connection, what: str, fleet: str | None) -> int:
    """Count the ``launches`` or ``disruptions`` in a fleet, or in all fleets (None)."""
    if fleet is None:
        return int(tx.execute(_UNDER_WAY[what]).scalar_one())
    return int(tx.execute(_UNDER_WAY_IN[what], {"of_fleet": fleet}).scalar_one())


def _counting(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(machines).where(*where)


_LOCK = sa.update(meta).where(meta.c.key == "installation").values(key="installation")
_LEAVING = sa.or_(machines.c.intent.in_(("doomed", "failed")), machines.c.traffic == "drain")
_UNDER_WAY = {
    "launches": _counting(machines.c.ready_since.is_(None), machines.c.intent.in_(("launch", "launched"))),
    "disruptions": _counting(machines.c.ready_since.is_not(None), machines.c.kept_until.is_(None), _LEAVING),
}
_UNDER_WAY_IN = {what: count.where(machines.c.fleet == queries.FLEET) for what, count in _UNDER_WAY.items()}
_RESERVED = {
    what: sa.select(sa.func.coalesce(sa.func.sum(reservations.c[what]), 0)).where(
        reservations.c.at > sa.bindparam("after"), reservations.c.at < sa.bindparam("before")
    )
    for what in ("launches", "disruptions")
}
