"""Frequent SQL statements, built once: building one takes longer than SQLite needs to run it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from saltext.immutable.store.schema import (
    UNFINISHED,
    fleets,
    generations,
    journal,
    machines,
    orders,
    protections,
    reservations,
    rollouts,
    sizes,
    taints,
)

FLEET: sa.BindParameter[str] = sa.bindparam("of_fleet")
MINION: sa.BindParameter[str] = sa.bindparam("of_minion")
ROLLOUT: sa.BindParameter[int] = sa.bindparam("of_rollout")
# The types of the columns of UPDATES: PostgreSQL needs them where a part of the union has NULL.
_TYPES: dict[str, Any] = {
    "id": sa.Integer,
    "minion_id": sa.Text,
    "number": sa.Integer,
    "at": sa.Float,
    "reason": sa.Text,
    "who": sa.Text,
    "word": sa.Text,
    "step": sa.Integer,
}


def _updates(kind: str, table: sa.Table, **columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    values = [columns.get(name, sa.cast(sa.null(), of)).label(name) for name, of in _TYPES.items()]
    return sa.select(sa.literal(kind).label("kind"), *values).where(table.c.fleet == FLEET)


UPDATES = sa.union_all(
    _updates("taint", taints, minion_id=taints.c.minion_id, at=taints.c.at, reason=taints.c.reason, word=taints.c.kind),
    _updates("protection", protections, minion_id=protections.c.minion_id, reason=protections.c.reason),
    _updates("size", sizes, id=sizes.c.instead_of, number=sizes.c.size),
    _updates(
        "order",
        orders,
        id=orders.c.id,
        number=orders.c.rollout,
        at=orders.c.at,
        reason=orders.c.reason,
        who=orders.c.who,
        word=orders.c.what,
        step=orders.c.step,
    ).where(orders.c.taken.is_(None)),
)
"""What other processes write about a fleet: taints, protections, its size, and orders that no driver has applied."""

DROP_TAINTS = sa.delete(taints).where(taints.c.minion_id == MINION)
DROP_PROTECTIONS = sa.delete(protections).where(protections.c.minion_id == MINION)
DROP_MACHINE = sa.delete(machines).where(machines.c.minion_id == MINION)
DROP_RESERVATION = sa.delete(reservations).where(reservations.c.fleet == FLEET)
ADD_MACHINE, ADD_ENTRY = sa.insert(machines), sa.insert(journal)
CHANGE_ROLLOUT = sa.update(rollouts).where(rollouts.c.id == ROLLOUT)

MACHINES = sa.select(machines).where(machines.c.fleet == FLEET).order_by(machines.c.born, machines.c.minion_id)
ROLLOUTS = sa.select(rollouts).where(rollouts.c.fleet == FLEET).order_by(rollouts.c.id.desc())
UNFINISHED_ROLLOUT = sa.select(rollouts).where(rollouts.c.fleet == FLEET, UNFINISHED)
GENERATIONS = sa.select(generations).where(generations.c.fleet == FLEET).order_by(generations.c.number)
FLEET_ROW = sa.select(fleets).where(fleets.c.name == FLEET)
SIZE = sa.select(sizes.c.size).where(sizes.c.fleet == FLEET, sizes.c.instead_of == sa.bindparam("declared"))
"""The size that ``fleet.scale`` set in place of the pillar's."""

BATCH = 500
"""How many ids one query names."""


def among(connection: sa.Connection, column: sa.Column[str], ids: Collection[str]) -> set[str]:
    """Return those of the minion ids that stand in a column."""
    wanted, found = list(ids), set[str]()
    for start in range(0, len(wanted), BATCH):
        query = sa.select(column).where(column.in_(wanted[start : start + BATCH])).distinct()
        found.update(connection.execute(query).scalars())
    return found
