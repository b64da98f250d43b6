"""What other processes wrote to the store: orders of operators, taints, protections, another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.fleet.decide.orders import Order, applied
from saltext.immutable.fleet.drive.run import Run


class Inbox:
    """Reads changes from the store of one fleet. ``declared``: the size in the pillar."""

    def __init__(self, ledger: Ledger, declared: int) -> None:
        self._ledger, self._declared = ledger, declared
        self._marks: tuple[dict[str, str], dict[str, str]] = ({}, {})
        """The taints and protections that were read last."""

    def read(self, run: Run) -> None:
        """Read the store, and apply what changed to the run."""
        updates = self._ledger.updates(self._declared)
        marks = (dict(updates.taints), dict(updates.protections))
        if marks != self._marks:
            self._marks = marks
            run.picture.set_marks(*marks)
        if updates.size != run.fleet.size:
            run.transaction.note("size", f"{updates.size} in place of {run.fleet.size} machines are wanted")
            run.fleet = replace(run.fleet, size=updates.size)
        if updates.orders:
            _apply(run, updates.orders)


def _apply(run: Run, orders: Sequence[Order]) -> None:
    before, run.rollout = run.rollout, applied(run.rollout, orders, run.clock())
    run.transaction.take_up(orders)
    for order in orders:
        if order.rollout == before.id:
            run.transaction.note("order", str(order))
    run.note_outcome(before)
