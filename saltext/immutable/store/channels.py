"""Channels and what they named before. Each function works within the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from saltext.immutable.store.schema import channel_moves, channels

What = Literal["bake", "promote", "rollback", "delete"]


@dataclass(frozen=True)
class Move:
    """A channel that names another image from now on."""

    recipe: str
    channel: str
    at: float
    what: What
    source: str | None
    """Digest of what it named before; None: there was no such channel."""
    target: str | None
    """Digest; None: the channel was taken away."""
    reason: str = ""
    who: str | None = None


def move(tx: sa.Connection, wanted: Move) -> Move | None:
    """Let a channel name the target of ``wanted``, and write it down; None: it names that already."""
    where = (channels.c.recipe == wanted.recipe, channels.c.channel == wanted.channel)
    source = tx.execute(sa.select(channels.c.digest).where(*where)).scalar()
    if source == wanted.target:
        return None
    if wanted.target is None:
        tx.execute(sa.delete(channels).where(*where))
    elif not tx.execute(sa.update(channels).where(*where).values(digest=wanted.target)).rowcount:
        row = {"recipe": wanted.recipe, "channel": wanted.channel, "digest": wanted.target}
        tx.execute(sa.insert(channels).values(row))
    done = asdict(wanted) | {"source": source}
    tx.execute(sa.insert(channel_moves).values(done))
    return Move(**done)


def moves(connection: sa.Connection, recipe: str) -> list[Move]:
    """Return the moves of a recipe's channels, the oldest first."""
    columns = [column for column in channel_moves.c if column.name != "id"]
    query = sa.select(*columns).where(channel_moves.c.recipe == recipe).order_by(channel_moves.c.id)
    return [Move(**row) for row in connection.execute(query).mappings()]


def before(history: Sequence[Move]) -> list[str]:
    """Return the images that one channel could go back to, the nearest first; ``history``: its moves, the oldest first.

    Where it was rolled back from does not count: A, B, C, back to B leaves A, and not C.
    """
    way: list[str] = []
    for one in history:
        if not way and one.source:
            way.append(one.source)
        if one.target is None:
            continue
        if one.what == "rollback" and one.target in way:
            while way[-1] != one.target:
                way.pop()
        elif way[-1:] != [one.target]:
            way.append(one.target)
    last = history[-1].target if history else None
    return [digest for digest in reversed(way) if digest != last]
