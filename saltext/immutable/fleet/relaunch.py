"""``fleet.relaunch_phase``: run the launch phase of a fleet's machines again, a few at a time, for changed secrets.

No progress is saved: after an interruption the command starts again, since the phase may run any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.drive.probing import PROBE_UNWELL
from saltext.immutable.fleet.drive.threads import Call, Completion, Effects, Task, in_parallel
from saltext.immutable.fleet.drive.track import NEVER
from saltext.immutable.fleet.drive.world import World
from saltext.immutable.fleet.interventions import Notify
from saltext.immutable.fleet.operations import Failed, Operations
from saltext.immutable.fleet.signals import stop_on_signal
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease
from saltext.immutable.text import plain


@dataclass
class MachineRelaunch:
    """The relaunch of one machine."""

    record: Record
    address: str | None
    was_healthy: bool
    """Before the command began."""
    phase: Literal["waiting", "applying", "settling", "done", "failed"] = "waiting"
    began: float = 0.0
    deadline: float = NEVER
    probe_at: float = NEVER
    busy: set[Call] = field(default_factory=set)
    """Kinds of calls that have not come back."""
    note: str = "it did not answer"

    @property
    def active(self) -> bool:
        """Tell whether the machine may be out of service because of this command."""
        return self.phase in ("applying", "settling")


def relaunch(operations: Operations, notify: Notify, name: str, test: bool = False) -> dict[str, Any]:
    """Run the launch phase of every machine of a fleet; return ``order`` and ``at_a_time``.

    Raises ``Failed`` if a machine failed, ``Interrupted`` if told to stop. ``test``: only return the order.
    """
    fleet, ledger = operations.definition(name), operations.ledger(name)
    if test:
        found = operations.write_back(name, test=True)
        world = operations.access.world(fleet, ledger, missing=found.generations)
        there = {**ledger.records(), **{one.minion_id: one for one in found.records}}
        return _result(fleet, _in_order(world, there.values()), None)
    with stop_on_signal() as stopped, operations.lease(name) as lease:
        world = operations.world(fleet, ledger)
        machines = _in_order(world, ledger.records().values())
        lease.renew()
        result = _result(fleet, machines, True)
        log = _Log(operations, notify, name, lease)
        RelaunchLoop(fleet, machines, lease, world, operations.effects(stopped), operations.clock, log, stopped).run()
    return result


def _result(fleet: Fleet, machines: Sequence[MachineRelaunch], result: bool | None) -> dict[str, Any]:
    order = [one.record.minion_id for one in machines]
    return {"fleet": fleet.name, "order": order, "at_a_time": _max_at_once(fleet, machines), "result": result}


class RelaunchLoop:
    """The loop of the command: start, submit calls, wait, take completions. Only this loop uses the store."""

    def __init__(
        self,
        fleet: Fleet,
        machines: Sequence[MachineRelaunch],
        lease: Lease,
        world: World,
        effects: Effects,
        clock: Callable[[], float],
        log: _Log,
        stopped: Callable[[], bool],
    ) -> None:
        self._fleet, self._machines, self._lease = fleet, machines, lease
        self._world, self._effects = world, effects
        self._clock, self._log, self._stopped = clock, log, stopped
        self._renew_at = clock() + lease.ttl / 3

    def run(self) -> None:
        """Run until every machine is done, or too many have failed, or the command is told to stop."""
        try:
            while True:
                self._begin()
                if not any(one.active for one in self._machines):
                    break
                self._submit()
                completions, _ = self._effects.wait(self._next_time())
                for completion in completions:
                    self._take(completion)
                self._fail_overdue()
                self._renew_lease()
        finally:
            self._effects.close()
        self._raise_failures()

    def _renew_lease(self) -> None:
        if self._clock() >= self._renew_at:
            self._lease.renew()
            self._renew_at = self._clock() + self._lease.ttl / 3

    def _begin(self) -> None:
        """Begin with as many machines as may be out of service at once."""
        if self._stopped() or self._fleet.strategy.max_failures.exceeded(len(self._failed()), len(self._machines)):
            return
        free = _max_at_once(self._fleet, self._machines) - sum(one.active for one in self._machines)
        for one in [one for one in self._machines if one.phase == "waiting"][: max(0, free)]:
            one.phase, one.began = "applying", self._clock()
            one.deadline = one.began + self._fleet.strategy.ready_within
            self._log("relaunch", f"{self._machines.index(one) + 1} of {len(self._machines)}", one.record.minion_id)

    def _submit(self) -> None:
        now = self._clock()
        for one in self._machines:
            if one.phase == "applying" and not one.busy:
                within = self._fleet.strategy.ready_within
                self._call("relaunch", one, partial(self._world.relaunch, one.record, within))
            elif one.phase == "settling" and not one.busy and now >= one.probe_at:
                self._call("probe", one, partial(self._world.probe, one.record, one.address, False))

    def _call(self, kind: Call, machine: MachineRelaunch, call: Callable[[], Any]) -> None:
        machine.busy.add(kind)
        self._effects.submit(Task(kind, machine.record.minion_id, self._clock()), call)

    def _take(self, completion: Completion) -> None:
        [machine] = [one for one in self._machines if one.record.minion_id == completion.task.minion_id]
        machine.busy.discard(completion.task.kind)
        if not machine.active:
            return
        now = self._clock()
        if completion.error is not None:
            self._fail(machine, plain(str(completion.error)))
        elif completion.task.kind == "relaunch":
            machine.phase, machine.probe_at = "settling", now
            machine.deadline = now + self._fleet.strategy.ready_within
        elif completion.value.health == "yes":
            machine.phase = "done"
            self._log("relaunched", f"healthy after {now - machine.began:.1f} s", machine.record.minion_id)
        else:
            machine.note, machine.probe_at = completion.value.note, now + PROBE_UNWELL

    def _fail_overdue(self) -> None:
        for one in self._machines:
            if one.active and self._clock() >= one.deadline:
                within = f"{self._fleet.strategy.ready_within:g} s"
                state = "its launch phase has not ended" if one.phase == "applying" else "not healthy"
                self._fail(one, f"{state} within {within}: {one.note}")

    def _fail(self, machine: MachineRelaunch, why: str) -> None:
        machine.phase, machine.note = "failed", why
        self._log("relaunch failed", why, machine.record.minion_id)

    def _failed(self) -> list[MachineRelaunch]:
        return [one for one in self._machines if one.phase == "failed"]

    def _next_time(self) -> float:
        """Return when the loop has something to do even if no call comes back."""
        active = [one for one in self._machines if one.active]
        probes = [one.probe_at for one in active if one.phase == "settling" and not one.busy]
        return min([self._renew_at, *probes, *(one.deadline for one in active)])

    def _raise_failures(self) -> None:
        """Raise ``Failed`` if a machine failed, ``Interrupted`` if machines are left."""
        again = f"`salt-run fleet.relaunch_phase {self._fleet.name}` starts again"
        waiting = [one.record.minion_id for one in self._machines if one.phase == "waiting"]
        rest = f"; not begun: {', '.join(waiting)}" if waiting else ""
        if failed := self._failed():
            why = "\n".join(f"{one.record.minion_id}: {one.note}" for one in failed)
            raise Failed(f"fleet {self._fleet.name}: the launch phase failed: {why}{rest}; {again}")
        if waiting:
            raise Interrupted(f"stopped{rest}; {again}")


class _Log:
    """Writes each step to the audit log, while the lease is held, and fires its event."""

    def __init__(self, operations: Operations, notify: Notify, fleet: str, lease: Lease) -> None:
        self._operations, self._notify, self._fleet, self._lease = operations, notify, fleet, lease

    def __call__(self, what: str, reason: str, minion_id: str) -> None:
        entry = self._operations.audit_entry(what, minion_id, self._fleet, reason)
        self._operations.audit.write(entry, self._lease)
        data = {"fleet": self._fleet, "minion_id": minion_id, "reason": reason, "at": entry.at}
        self._notify(f"{what} {minion_id}: {reason}", f"{self._fleet}/{what.replace(' ', '-')}", **data)


def _serves(record: Record) -> bool:
    return record.ready_since is not None and not record.doomed


def _in_order(world: World, there: Iterable[Record]) -> list[MachineRelaunch]:
    """Return the machines that serve in the order in which they are relaunched: unhealthy ones, then the oldest."""
    records = [one for one in there if _serves(one)]
    addresses = {instance.minion_id: instance.address for instance in world.list()}
    probes = in_parallel({r.minion_id: partial(world.probe, r, addresses.get(r.minion_id), False) for r in records})
    machines = [MachineRelaunch(r, addresses.get(r.minion_id), probes[r.minion_id].health == "yes") for r in records]
    return sorted(machines, key=lambda one: (one.was_healthy, one.record.born, one.record.minion_id))


def _max_at_once(fleet: Fleet, machines: Sequence[MachineRelaunch]) -> int:
    """Return how many machines may be relaunched at once; those that failed are out of service already."""
    failed = sum(one.phase == "failed" for one in machines)
    return max(1, fleet.strategy.max_unavailable.down(len(machines)) - failed)
