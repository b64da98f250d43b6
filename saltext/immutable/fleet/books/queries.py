"""Statements of a fleet's books that are made often, built once: to build one takes longer than SQLite to run it."""

from __future__ import annotations

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
# PostgreSQL has to be told of which type nothing is, where another part of the union has something.
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


def _news(what: str, table: sa.Table, **columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    told = [columns.get(name, sa.cast(sa.null(), of)).label(name) for name, of in _TYPES.items()]
    return sa.select(sa.literal(what).label("told"), *told).where(table.c.fleet == FLEET)


NEWS = sa.union_all(
    _news("taint", taints, minion_id=taints.c.minion_id, at=taints.c.at, reason=taints.c.reason, word=taints.c.kind),
    _news("protection", protections, minion_id=protections.c.minion_id, reason=protections.c.reason),
    _news("size", sizes, id=sizes.c.instead_of, number=sizes.c.size),
    _news(
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
"""What others wrote about a fleet: taints, protections, its size, and orders that nobody has taken up."""

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
"""The size that was set in place of a declared one."""
