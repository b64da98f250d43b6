"""Who needs an image: what nothing of this needs may be deleted."""

from __future__ import annotations

import sqlalchemy as sa

from saltext.immutable.store.schema import UNFINISHED, channels, fleets, generations, machines, rollouts


def needed(tx: sa.Connection, digest: str, but_channels: bool = False) -> list[str]:
    """Return who needs an image: channels, and generations that have machines, or that fleets go or could go to."""
    in_channels = [
        f"channel {row.recipe}:{row.channel}"
        for row in tx.execute(sa.select(channels).where(channels.c.digest == digest))
        if not but_channels
    ]
    kept = _kept(tx)
    in_fleets = [
        f"generation {row.number} of fleet {row.fleet}"
        for row in tx.execute(sa.select(generations).where(generations.c.image == digest))
        if (row.fleet, row.number) in kept
    ]
    return sorted(in_channels) + sorted(in_fleets)


def _kept(tx: sa.Connection) -> set[tuple[str, int | None]]:
    """Return the fleets with the numbers of those generations that they need."""
    kept = {(row.name, number) for row in tx.execute(sa.select(fleets)) for number in row.lineage[-2:]}
    kept |= {(row.fleet, row.generation) for row in tx.execute(sa.select(machines))}
    walked = tx.execute(sa.select(rollouts).where(UNFINISHED)).all()
    return kept | {(row.fleet, number) for row in walked for number in (row.source, row.target)}


def runners(connection: sa.Connection, digest: str) -> dict[str, int]:
    """Return the fleets that run an image, or were to run it when they last stood still, with their machines of it."""
    found: dict[str, int] = {}
    numbered = {
        (row.fleet, row.number)
        for row in connection.execute(sa.select(generations).where(generations.c.image == digest))
    }
    for row in connection.execute(sa.select(fleets)):
        if row.lineage and (row.name, row.lineage[-1]) in numbered:
            found[row.name] = 0
    for row in connection.execute(sa.select(rollouts).where(UNFINISHED)):
        if (row.fleet, row.target) in numbered:
            found.setdefault(row.fleet, 0)
    for row in connection.execute(sa.select(machines)):
        if (row.fleet, row.generation) in numbered:
            found[row.fleet] = found.get(row.fleet, 0) + 1
    return dict(sorted(found.items()))
