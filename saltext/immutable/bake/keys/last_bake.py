"""What earlier bakes found out, kept in the store, by which the next bake decides whether to build anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from saltext.immutable.bake.keys import used_files
from saltext.immutable.images.manifest import digest
from saltext.immutable.store import Store
from saltext.immutable.store.schema import bakes, fingerprints, questions

_KEPT = 10
"""How many sets of questions are kept for one ground."""


def asked(store: Store, ground: str) -> list[list[list[Any]]]:
    """Return the questions that each bake on this ground asked the master, the newest bake first."""
    query = sa.select(questions.c.asked).where(questions.c.ground == ground).order_by(questions.c.at.desc())
    with store.read() as connection:
        return [list(found) for found in connection.execute(query).scalars()]


def keep_asked(store: Store, recipe: str, ground: str, found: used_files.Trace) -> None:
    """Keep the questions that a bake asked the master, and delete the oldest if there are many."""
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
    """A fingerprint, and the image that a bake with that fingerprint gives."""

    fingerprint: str
    image: str
    layers: Mapping[str, str]
    """By key of a layer: its digest."""


def fingerprint(store: Store, recipe: str, channel: str) -> Kept | None:
    """Return the fingerprint that the last bake of a recipe for a channel kept; None: there is none."""
    mine = sa.and_(fingerprints.c.recipe == recipe, fingerprints.c.channel == channel)
    columns = (fingerprints.c.fingerprint, fingerprints.c.image, fingerprints.c.layers)
    with store.read() as connection:
        row = connection.execute(sa.select(*columns).where(mine)).first()
    return None if row is None or not row[2] else Kept(row[0], row[1], dict(row[2]))


def keep_fingerprint(store: Store, recipe: str, channel: str, kept: Kept | None) -> None:
    """Keep a fingerprint in place of the last one; None: delete the last one."""
    mine = sa.and_(fingerprints.c.recipe == recipe, fingerprints.c.channel == channel)
    with store.write() as tx:
        tx.execute(sa.delete(fingerprints).where(mine))
        if kept is not None:
            row = {"recipe": recipe, "channel": channel, "at": store.clock(), **asdict(kept)}
            tx.execute(sa.insert(fingerprints).values(**row))


def last(store: Store, recipe: str) -> dict[str, Any] | None:
    """Return the parts (see `why.parts`) of a recipe's last bake; None if there was no bake that kept them."""
    with store.read() as connection:
        found = connection.execute(sa.select(bakes.c.told).where(bakes.c.recipe == recipe)).scalar()
    return None if found is None else dict(found)


def keep_last(store: Store, recipe: str, parts: Mapping[str, Any]) -> None:
    """Keep the parts of a recipe's bake in place of those of the bake before."""
    with store.write() as tx:
        tx.execute(sa.delete(bakes).where(bakes.c.recipe == recipe))
        tx.execute(sa.insert(bakes).values(recipe=recipe, at=store.clock(), told=dict(parts)))
