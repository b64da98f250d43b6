"""What a command would do, and the machines that it is foreseen from: the ledger and one list of the provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from saltext.immutable.fleet.books.ledger import Ledger, Record
from saltext.immutable.fleet.decide.state import Action, Kind, Machine
from saltext.immutable.fleet.drive.track import phase
from saltext.immutable.providers import Instance


@dataclass(frozen=True)
class Forecast:
    """What a command would do."""

    fleet: str
    kind: Kind
    current: int | None
    """Number of the current generation."""
    image: str | None
    """Name of the image that would run; None: no machine would run."""
    actions: tuple[Action, ...]
    continues: bool
    """Whether it would continue an interrupted rollout."""
    digest: str | None = None
    """Of the image that would run."""
    machines: tuple[Machine, ...] = ()
    """The machines that the forecast was made from."""
    stuck: str | None = None
    """What the rollout would wait for without end; None: it would end."""

    @property
    def nothing(self) -> bool:
        """Tell whether the command would do nothing."""
        return not self.actions and not self.continues and self.stuck is None


def machines_of(
    ledger: Ledger,
    recovered: Sequence[Record],
    taints: Mapping[str, str],
    instances: Mapping[str, Instance],
    now: float,
) -> Iterator[Machine]:
    """Yield the machines from the ledger and one list; machines that serve are assumed to be healthy.

    ``recovered``: what will be written back of machines that the store does not know; ``taints``: minion id to reason.
    """
    records = {**ledger.records(), **{one.minion_id: one for one in recovered}}
    protected = ledger.protected()
    for record in records.values():
        instance = instances.get(record.minion_id)
        lost = record.ref is not None and (instance is None or not instance.running)
        fault = "it is gone or has stopped" if lost and not record.doomed else None
        well = phase(record) not in ("doomed", "booting") and not fault
        yield Machine(
            record.minion_id,
            record.generation,
            phase(record),
            record.born,
            since=now,
            health="yes" if well else "unknown",
            fault=fault,
            taint=taints.get(record.minion_id) or (instance.damaged if instance else None),
            ready_since=record.ready_since,
            healthy_since=record.healthy_since,
            drain_since=record.drain_since,
            kept_until=record.kept_until,
            protect=protected.get(record.minion_id),
        )
    for instance in instances.values():
        if instance.minion_id not in records:
            fault = "it is left over from an earlier rollout"
            yield Machine(instance.minion_id, instance.generation, "booting", instance.born, since=now, fault=fault)
