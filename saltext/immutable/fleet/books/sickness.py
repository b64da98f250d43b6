"""What earlier runs of ``fleet.reconcile`` found: sick machines, since when, and the usual interval of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from saltext.immutable.fleet.decide.sickness import Rhythm, Sickness
from saltext.immutable.store import Store
from saltext.immutable.store.schema import looks, machines, sickness


class SicknessLog:
    """What was found in one fleet."""

    def __init__(self, store: Store, fleet: str) -> None:
        self._store, self._fleet = store, fleet

    def rhythm(self) -> Rhythm | None:
        """Return when the fleet was observed last, and the usual interval; None if it never was."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(looks).where(looks.c.fleet == self._fleet)).first()
        return Rhythm(row.at, row.usual) if row else None

    def sick(self) -> dict[str, Sickness]:
        """Return minion id to sickness of the machines that were sick when the fleet was observed last."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(sickness).where(sickness.c.fleet == self._fleet)).mappings()
            return {row["minion_id"]: Sickness(**row) for row in rows}

    def save(self, rhythm: Rhythm, sick: Sequence[Sickness]) -> None:
        """Save what was found, in place of what was found before."""
        with self._store.write() as tx:
            tx.execute(sa.delete(sickness).where(sickness.c.fleet == self._fleet))
            tx.execute(sa.delete(looks).where(looks.c.fleet == self._fleet))
            tx.execute(sa.insert(looks).values(fleet=self._fleet, **asdict(rhythm)))
            if sick:
                tx.execute(sa.insert(sickness), [asdict(one) for one in sick])

    def came_back(self, restarted: Mapping[str, float]) -> None:
        """Save that machines are healthy which their host started again. This needs no lease: a driver writes the same.

        ``restarted``: minion id to when that was, as the provider says.
        """
        with self._store.write() as tx:
            for minion_id, at in restarted.items():
                tx.execute(sa.update(machines).where(machines.c.minion_id == minion_id).values(restarted=at))
