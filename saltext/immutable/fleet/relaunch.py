"""Let a fleet's machines go through their launch phase again, a few at a time: for secrets that have changed.

Nothing has to be remembered: who was interrupted, or killed, begins anew, and the phase may run any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.drive.effects import Call, Completion, Effects, Task, in_parallel
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.drive.track import NEVER, UNWELL
from saltext.immutable.fleet.drive.world import World
from saltext.immutable.fleet.interventions import Tell
from saltext.immutable.fleet.operations import Failed, Operations, signals
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Lease
from saltext.immutable.text import plain


@dataclass
class Turn:
    """One machine's turn."""

    record: Record
    address: str | None
    well: bool
    """It was healthy before."""
    phase: Literal["waiting", "applying", "settling", "done", "failed"] = "waiting"
    began: float = 0.0
    deadline: float = NEVER
    probe_at: float = NEVER
    busy: set[Call] = field(default_factory=set)
    note: str = "it did not answer"

    @property
    def under_way(self) -> bool:
        """Tell whether it may be out of service because of us."""
        return self.phase in ("applying", "settling")


def relaunch(operations: Operations, tell: Tell, name: str, test: bool = False) -> dict[str, Any]:
    """Run the launch phase of every machine of a fleet, and return in which order; raise ``Failed`` if one failed."""
    fleet, ledger = operations.definition(name), operations.ledger(name)
    with signals() as stopped, operations.lease(name) as lease:
        world = operations.world(fleet, ledger)
        turns = _turns(world, [one for one in ledger.records().values() if _serves(one)])
        lease.renew()
        told = {"fleet": name, "order": [turn.record.minion_id for turn in turns], "at_a_time": _room(fleet, turns)}
        if test:
            return {**told, "result": None}
        say = _Voice(operations, tell, name, lease)
        Relaunch(fleet, turns, lease, world, operations.effects(stopped), operations.clock, say, stopped).run()
    return {**told, "result": True}


class Relaunch:
    """The loop. Clock, effects and the wish to stop are given to it; only it touches the store."""

    def __init__(
        self,
        fleet: Fleet,
        turns: Sequence[Turn],
        lease: Lease,
        world: World,
        effects: Effects,
        clock: Callable[[], float],
        say: _Voice,
        stopped: Callable[[], bool],
    ) -> None:
        self._fleet, self._turns, self._lease = fleet, turns, lease
        self._world, self._effects = world, effects
        self._clock, self._say, self._stopped = clock, say, stopped
        self._beat_at = clock() + lease.ttl / 3

    def run(self) -> None:
        """Go on until every machine had its turn, or enough have failed, or we are told to stop."""
        try:
            while True:
                self._begin()
                if not any(turn.under_way for turn in self._turns):
                    break
                self._submit()
                completions, _ = self._effects.wait(self._next())
                for completion in completions:
                    self._came(completion)
                self._give_up()
                self._beat()
        finally:
            self._effects.close()
        self._end()

    def _beat(self) -> None:
        if self._clock() >= self._beat_at:
            self._lease.renew()
            self._beat_at = self._clock() + self._lease.ttl / 3

    def _begin(self) -> None:
        """Let as many begin as may be out of service at once."""
        if self._stopped() or self._fleet.strategy.max_failures.exceeded(len(self._failed()), len(self._turns)):
            return
        free = _room(self._fleet, self._turns) - sum(turn.under_way for turn in self._turns)
        for turn in [turn for turn in self._turns if turn.phase == "waiting"][: max(0, free)]:
            turn.phase, turn.began = "applying", self._clock()
            turn.deadline = turn.began + self._fleet.strategy.ready_within
            self._say("relaunch", f"{self._turns.index(turn) + 1} of {len(self._turns)}", turn.record.minion_id)

    def _submit(self) -> None:
        now = self._clock()
        for turn in self._turns:
            if turn.phase == "applying" and not turn.busy:
                within = self._fleet.strategy.ready_within
                self._call("relaunch", turn, partial(self._world.relaunch, turn.record, within))
            elif turn.phase == "settling" and not turn.busy and now >= turn.probe_at:
                self._call("probe", turn, partial(self._world.probe, turn.record, turn.address, False))

    def _call(self, kind: Call, turn: Turn, call: Callable[[], Any]) -> None:
        turn.busy.add(kind)
        self._effects.submit(Task(kind, turn.record.minion_id, self._clock()), call)

    def _came(self, completion: Completion) -> None:
        [turn] = [turn for turn in self._turns if turn.record.minion_id == completion.task.minion_id]
        turn.busy.discard(completion.task.kind)
        if not turn.under_way:
            return
        now = self._clock()
        if completion.error is not None:
            self._fail(turn, plain(str(completion.error)))
        elif completion.task.kind == "relaunch":
            turn.phase, turn.probe_at, turn.deadline = "settling", now, now + self._fleet.strategy.ready_within
        elif completion.value.health == "yes":
            turn.phase = "done"
            self._say("relaunched", f"healthy after {now - turn.began:.1f} s", turn.record.minion_id)
        else:
            turn.note, turn.probe_at = completion.value.note, now + UNWELL

    def _give_up(self) -> None:
        for turn in self._turns:
            if turn.under_way and self._clock() >= turn.deadline:
                within = f"{self._fleet.strategy.ready_within:g} s"
                state = "its launch phase has not ended" if turn.phase == "applying" else "not healthy"
                self._fail(turn, f"{state} within {within}: {turn.note}")

    def _fail(self, turn: Turn, why: str) -> None:
        turn.phase, turn.note = "failed", why
        self._say("relaunch failed", why, turn.record.minion_id)

    def _failed(self) -> list[Turn]:
        return [turn for turn in self._turns if turn.phase == "failed"]

    def _next(self) -> float:
        """Return when there is something to do even if nothing comes back."""
        under_way = [turn for turn in self._turns if turn.under_way]
        times = [turn.probe_at for turn in under_way if turn.phase == "settling" and not turn.busy]
        return min([self._beat_at, *times, *(turn.deadline for turn in under_way)])

    def _end(self) -> None:
        """Raise what an operator has to know."""
        again = f"`salt-run fleet.relaunch_phase {self._fleet.name}` begins anew"
        waiting = [turn.record.minion_id for turn in self._turns if turn.phase == "waiting"]
        rest = f"; not begun: {', '.join(waiting)}" if waiting else ""
        if failed := self._failed():
            why = "\n".join(f"{turn.record.minion_id}: {turn.note}" for turn in failed)
            raise Failed(f"fleet {self._fleet.name}: the launch phase failed: {why}{rest}; {again}")
        if waiting:
            raise Interrupted(f"stopped{rest}; {again}")


class _Voice:
    """Writes down each step, while the lease is ours, and says it."""

    def __init__(self, operations: Operations, tell: Tell, fleet: str, lease: Lease) -> None:
        self._operations, self._tell, self._fleet, self._lease = operations, tell, fleet, lease

    def __call__(self, what: str, reason: str, minion_id: str) -> None:
        deed = self._operations.audit_entry(what, minion_id, self._fleet, reason)
        self._operations.audit.write(deed, self._lease)
        data = {"fleet": self._fleet, "minion_id": minion_id, "reason": reason, "at": deed.at}
        self._tell(f"{what} {minion_id}: {reason}", f"{self._fleet}/{what.replace(' ', '-')}", **data)


def _serves(record: Record) -> bool:
    return record.ready_since is not None and not record.doomed


def _turns(world: World, records: Sequence[Record]) -> list[Turn]:
    """Return the machines in the order of their turns: what serves nobody comes first, then the oldest."""
    addresses = {instance.minion_id: instance.address for instance in world.list()}
    looks = in_parallel({r.minion_id: partial(world.probe, r, addresses.get(r.minion_id), False) for r in records})
    turns = [Turn(r, addresses.get(r.minion_id), looks[r.minion_id].health == "yes") for r in records]
    return sorted(turns, key=lambda turn: (turn.well, turn.record.born, turn.record.minion_id))


def _room(fleet: Fleet, turns: Sequence[Turn]) -> int:
    """Return how many may be out of service at once; what failed is out of service."""
    failed = sum(turn.phase == "failed" for turn in turns)
    return max(1, fleet.strategy.max_unavailable.down(len(turns)) - failed)
