"""What a driver has to write since its last commit: one transaction for each step of the loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from saltext.immutable.fleet.books.ledger import Entry, Ledger, Record
from saltext.immutable.fleet.decide.orders import Order
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.store import Lease

Say = Callable[[Entry], None]


class Transaction:
    """The changes of one rollout, from one commit to the next."""

    def __init__(
        self,
        ledger: Ledger,
        lease: Lease,
        rollout: Rollout,
        records: Mapping[str, Record],
        clock: Callable[[], float],
        say: Say,
    ) -> None:
        self._ledger, self._lease = ledger, lease
        self._clock, self._say = clock, say
        self._rollout, self._records = rollout, dict(records)
        """As the store has them."""
        self._entries: list[Entry] = []
        self._taken: list[int] = []
        self._changed: set[str] = set()
        self.reserved = True
        """Whether the budgets may hold a reservation of this fleet, perhaps one of an earlier driver."""
        self.beat_at = clock() + lease.ttl / 3
        """When the lease must be renewed even if there is nothing to write."""

    def in_journal(self, ids: Collection[str]) -> set[str]:
        """Return those of the minion ids that the journal of the store names."""
        return self._ledger.in_journal(ids)

    def note(self, what: str, reason: str, minion_id: str | None = None) -> None:
        """Add an entry to the journal."""
        self._entries.append(Entry(self._clock(), what, minion_id, reason))

    def changed(self, minion_id: str) -> None:
        """Note that the record of a machine may differ from the store's."""
        self._changed.add(minion_id)

    def take_up(self, orders: Sequence[Order]) -> None:
        """Mark orders as applied."""
        self._taken += [order.id for order in orders]

    def commit(self, rollout: Rollout, record_of: Callable[[str], Record | None]) -> None:
        """Write what changed in one transaction, then report it; if nothing changed, only renew the lease in time."""
        there = {name: record_of(name) for name in self._changed}
        changed = [record for name, record in there.items() if record and record != self._records.get(name)]
        gone = [name for name, record in there.items() if record is None and name in self._records]
        if rollout != self._rollout or changed or gone or self._entries or self._taken:
            news = (changed, gone, self._entries, self._taken)
            self._ledger.commit(self._lease, rollout, *news, reserved=self.reserved)
            self.reserved = False
        elif self._clock() >= self.beat_at:
            self._lease.renew()
        else:
            return
        self.beat_at = self._clock() + self._lease.ttl / 3
        self._written(rollout, changed, gone)

    def _written(self, rollout: Rollout, changed: Collection[Record], gone: Collection[str]) -> None:
        self._rollout = rollout
        self._records.update({record.minion_id: record for record in changed})
        for name in gone:
            del self._records[name]
        self._changed.clear()
        said, self._entries, self._taken = self._entries, [], []
        for entry in said:
            self._say(entry)
