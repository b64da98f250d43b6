"""Images that must not be rolled: revoked ones, and those that failed their tests.

A revocation outlives the image, since a bake of the same inputs gives the same digest. A failed image is tested again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import sqlalchemy as sa

from saltext.immutable.store.schema import revocations, tests


@dataclass(frozen=True)
class Revocation:
    """Why an image must not be rolled any more."""

    digest: str
    name: str
    """Short name of the image: ``web@3f2a9c1d04be``."""
    at: float
    reason: str
    who: str | None = None

    def __str__(self) -> str:
        date = datetime.fromtimestamp(self.at, timezone.utc).isoformat(sep=" ", timespec="seconds")
        return f"{self.name} was revoked on {date}{f' by {self.who}' if self.who else ''}: {self.reason}"


@dataclass(frozen=True)
class Failure(Revocation):
    """An image that failed its tests. It is kept, so that the reason can be found."""

    def __str__(self) -> str:
        date = datetime.fromtimestamp(self.at, timezone.utc).isoformat(sep=" ", timespec="seconds")
        return f"{self.name} {self.reason} (on {date}; salt-run image.tests {self.name})"


def unusable(connection: sa.Connection) -> dict[str, Revocation]:
    """Return the images that must not be rolled, revoked or failed, by digest."""
    return {**failures(connection), **active(connection)}


def failures(connection: sa.Connection) -> dict[str, Revocation]:
    """Return the images whose last tests failed, by digest."""
    query = sa.select(tests).where(tests.c.failed.is_not(None), tests.c.digest.is_not(None))
    return {
        row.digest: Failure(row.digest, f"{row.recipe}@{row.digest[:12]}", row.at, row.failed)
        for row in connection.execute(query)
    }


def active(connection: sa.Connection) -> dict[str, Revocation]:
    """Return the revocations that were not lifted, by digest."""
    columns = [revocations.c[name] for name in Revocation.__dataclass_fields__]
    query = sa.select(*columns).where(revocations.c.lifted.is_(None)).order_by(revocations.c.id)
    return {row["digest"]: Revocation(**row) for row in connection.execute(query).mappings()}


def add(tx: sa.Connection, revocation: Revocation) -> None:
    """Record that an image is revoked."""
    tx.execute(sa.insert(revocations).values(asdict(revocation)))


def lift(tx: sa.Connection, digest: str, at: float, reason: str, who: str | None) -> None:
    """Record that the revocation of an image is lifted."""
    where = (revocations.c.digest == digest, revocations.c.lifted.is_(None))
    tx.execute(sa.update(revocations).where(*where).values(lifted=at, lifted_reason=reason, lifted_by=who))
