"""What earlier looks at fleets told: who was sick, since when, and how often somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa

from saltext.immutable.fleet.decide.diagnosis import Rhythm, Sickness
from saltext.immutable.store import Store
from saltext.immutable.store.schema import looks, sickness


class Sicknesses:
    """The memory of looks at one fleet."""

    def __init__(self, store: Store, fleet: str) -> None:
        self._store, self._fleet = store, fleet

    def rhythm(self) -> Rhythm | None:
        """Return when the fleet was looked at; None: never."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(looks).where(looks.c.fleet == self._fleet)).first()
        return Rhythm(row.at, row.usual) if row else None

    def known(self) -> dict[str, Sickness]:
        """Return who was sick at the last look, by minion id."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(sickness).where(sickness.c.fleet == self._fleet)).mappings()
            return {row["minion_id"]: Sickness(**row) for row in rows}

    def remember(self, rhythm: Rhythm, sick: Sequence[Sickness]) -> None:
        """Write down what a look told; who is not among the sick is well."""
        with self._store.write() as tx:
            tx.execute(sa.delete(sickness).where(sickness.c.fleet == self._fleet))
            tx.execute(sa.delete(looks).where(looks.c.fleet == self._fleet))
            tx.execute(sa.insert(looks).values(fleet=self._fleet, **asdict(rhythm)))
            if sick:
                tx.execute(sa.insert(sickness), [asdict(one) for one in sick])
