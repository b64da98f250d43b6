"""Channels and their history. Each function works within the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from saltext.immutable.store.schema import channel_moves, channels

What = Literal["bake", "promote", "rollback", "delete"]


@dataclass(frozen=True)
class Move:
    """One change of a channel: which image it named before, and which it names since."""

    recipe: str
    channel: str
    at: float
    what: What
    source: str | None
    """Digest of the image before; None: there was no such channel."""
    target: str | None
    """Digest of the image after; None: the channel was deleted."""
    reason: str = ""
    who: str | None = None


def move(tx: sa.Connection, request: Move) -> Move | None:
    """Point a channel to the target of ``request`` and record it; return None if it points there already."""
    where = (channels.c.recipe == request.recipe, channels.c.channel == request.channel)
    source = tx.execute(sa.select(channels.c.digest).where(*where)).scalar()
    if source == request.target:
        return None
    if request.target is None:
        tx.execute(sa.delete(channels).where(*where))
    elif not tx.execute(sa.update(channels).where(*where).values(digest=request.target)).rowcount:
        row = {"recipe": request.recipe, "channel": request.channel, "digest": request.target}
        tx.execute(sa.insert(channels).values(row))
    done = asdict(request) | {"source": source}
    tx.execute(sa.insert(channel_moves).values(done))
    return Move(**done)


def moves(connection: sa.Connection, recipe: str) -> list[Move]:
    """Return the moves of a recipe's channels, the oldest first."""
    columns = [column for column in channel_moves.c if column.name != "id"]
    query = sa.select(*columns).where(channel_moves.c.recipe == recipe).order_by(channel_moves.c.id)
    return [Move(**row) for row in connection.execute(query).mappings()]


def earlier_images(history: Sequence[Move]) -> list[str]:
    """Return the digests that one channel could be rolled back to, the latest first.

    ``history``: its moves, the oldest first. Images that it was rolled back from do not count: after A, B, C and back
    to B, only A is left.
    """
    path: list[str] = []
    for one in history:
        if not path and one.source:
            path.append(one.source)
        if one.target is None:
            continue
        if one.what == "rollback" and one.target in path:
            while path[-1] != one.target:
                path.pop()
        elif path[-1:] != [one.target]:
            path.append(one.target)
    last = history[-1].target if history else None
    return [digest for digest in reversed(path) if digest != last]
