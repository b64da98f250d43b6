"""Which channels and fleets use an image. An image that none uses may be deleted."""

from __future__ import annotations

import sqlalchemy as sa

from saltext.immutable.store.schema import UNFINISHED, channels, fleets, generations, machines, rollouts


def used_by(tx: sa.Connection, digest: str, without_channels: bool = False) -> list[str]:
    """Return what uses an image: ``channel web:stable``, ``generation 3 of fleet web``.

    Generations count that have machines, that a rollout goes to, or that a fleet could roll back to.
    ``without_channels``: leave out the channels.
    """
    in_channels = [
        f"channel {row.recipe}:{row.channel}"
        for row in tx.execute(sa.select(channels).where(channels.c.digest == digest))
        if not without_channels
    ]
    kept = _kept_generations(tx)
    in_fleets = [
        f"generation {row.number} of fleet {row.fleet}"
        for row in tx.execute(sa.select(generations).where(generations.c.image == digest))
        if (row.fleet, row.number) in kept
    ]
    return sorted(in_channels) + sorted(in_fleets)


def _kept_generations(tx: sa.Connection) -> set[tuple[str, int | None]]:
    """Return fleet and number of the generations that fleets use."""
    kept = {(row.name, number) for row in tx.execute(sa.select(fleets)) for number in row.lineage[-2:]}
    kept |= {(row.fleet, row.generation) for row in tx.execute(sa.select(machines))}
    unfinished = tx.execute(sa.select(rollouts).where(UNFINISHED)).all()
    return kept | {(row.fleet, number) for row in unfinished for number in (row.source, row.target)}


def fleets_with(connection: sa.Connection, digest: str) -> dict[str, int]:
    """Return the fleets whose machines run an image, or whose current or target generation has it.

    Fleet to number of machines that run it, which may be 0.
    """
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
