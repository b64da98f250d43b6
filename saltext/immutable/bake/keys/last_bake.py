"""What earlier bakes found out, kept in the store so that the next one can decide whether anything is to be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from saltext.immutable.bake.keys import references
from saltext.immutable.images.manifest import digest
from saltext.immutable.store import Store
from saltext.immutable.store.schema import bakes, fingerprints, questions

_KEPT = 10
"""Sets of questions that are kept of a recipe with the same grains, pillar and layer below."""


def asked(store: Store, ground: str) -> list[list[list[Any]]]:
    """Return what bakes on this ground asked the master, a list of questions each, the newest first."""
    query = sa.select(questions.c.asked).where(questions.c.ground == ground).order_by(questions.c.at.desc())
    with store.read() as connection:
        return [list(found) for found in connection.execute(query).scalars()]


def keep_asked(store: Store, recipe: str, ground: str, found: references.Trace) -> None:
    """Write down what a bake asked the master; of many the oldest are forgotten."""
    row = {"ground": ground, "hash": digest(list(found))}
    mine = sa.and_(*(questions.c[name] == value for name, value in row.items()))
    with store.write() as tx:
        tx.execute(sa.delete(questions).where(mine))
        tx.execute(sa.insert(questions).values(**row, recipe=recipe, asked=list(found), at=store.clock()))
        newest = sa.select(questions.c.at).where(questions.c.ground == ground).order_by(questions.c.at.desc())
        oldest = tx.execute(newest.limit(_KEPT)).scalars().all()[-1]
        tx.execute(sa.delete(questions).where(questions.c.ground == ground, questions.c.at < oldest))


@dataclass(frozen=True)
class Kept:
    """A fingerprint, and what it stands for."""

    fingerprint: str
    image: str
    layers: Mapping[str, str]
    """By key, which digest it led to."""


def fingerprint(store: Store, recipe: str, channel: str) -> Kept | None:
    """Return the fingerprint that the last bake of a recipe for a channel kept."""
    mine = sa.and_(fingerprints.c.recipe == recipe, fingerprints.c.channel == channel)
    columns = (fingerprints.c.fingerprint, fingerprints.c.image, fingerprints.c.layers)
    with store.read() as connection:
        row = connection.execute(sa.select(*columns).where(mine)).first()
    return None if row is None or not row[2] else Kept(row[0], row[1], dict(row[2]))


def keep_fingerprint(store: Store, recipe: str, channel: str, kept: Kept | None) -> None:
    """Keep a fingerprint in place of the last one; None: there is none."""
    mine = sa.and_(fingerprints.c.recipe == recipe, fingerprints.c.channel == channel)
    with store.write() as tx:
        tx.execute(sa.delete(fingerprints).where(mine))
        if kept is not None:
            row = {"recipe": recipe, "channel": channel, "at": store.clock(), **asdict(kept)}
            tx.execute(sa.insert(fingerprints).values(**row))


def last(store: Store, recipe: str) -> dict[str, Any] | None:
    """Return what the last bake of a recipe was made from, in parts; None: there was none that wrote it down."""
    with store.read() as connection:
        found = connection.execute(sa.select(bakes.c.told).where(bakes.c.recipe == recipe)).scalar()
    return None if found is None else dict(found)


def keep_last(store: Store, recipe: str, told: Mapping[str, Any]) -> None:
    """Write down what a bake was made from, in place of what the one before was."""
    with store.write() as tx:
        tx.execute(sa.delete(bakes).where(bakes.c.recipe == recipe))
        tx.execute(sa.insert(bakes).values(recipe=recipe, at=store.clock(), told=dict(told)))
