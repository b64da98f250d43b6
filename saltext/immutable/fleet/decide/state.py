"""What a plan is made from and what it says: rollouts, machines, limits, actions. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, Protocol, TypeVar

Kind = Literal["roll", "rollback", "scale", "replace", "reconcile", "destroy"]
Direction = Literal["forward", "back", "hold", "stop"]
Outcome = Literal["done", "rolled back", "aborted", "paused"]
PausedBy = Literal["operator", "failure", "window"]
Health = Literal["yes", "no", "unknown"]
Phase = Literal["booting", "standby", "serving", "draining", "doomed"]

MENDING = ("scale", "replace", "reconcile")
"""Kinds that keep every sound machine, of whatever generation, and fill up with the last good one."""


@dataclass(frozen=True)
class Rollout:
    """The recorded walk of a fleet from one generation to another."""

    id: int
    fleet: str
    kind: Kind
    source: int | None
    """Generation that the fleet comes from; None: it had none."""
    target: int | None
    """Pinned generation that it goes to; None: every machine goes."""
    old_size: int
    """Machines of the fleet when this rollout began."""
    started: float
    progress_at: float
    """When the rollout last came further."""
    direction: Direction = "forward"
    """``back``: the new machines go, the old stay. ``hold``: only what failed goes, then it is paused.
    ``stop``: what does not serve yet goes, the rest stays as it is."""
    held_from: Direction | None = None
    """Where it was going when it was held."""
    step: int = 0
    """Which of the strategy's steps it is at, from 0."""
    step_reached_at: float | None = None
    """Since when all machines of the step are healthy."""
    approved: int = 0
    """How many steps operators approved."""
    switched_at: float | None = None
    """When a blue-green rollout moved the traffic."""
    replaces: int = 0
    """Machines that had to be replaced or added when it began; ``max_failures`` as a share is a share of these."""
    failures: Mapping[str, float] = field(default_factory=dict)
    """New machines that failed in this direction, and when."""
    verdict: str = ""
    """What the last plan said: how far it is, and what it waits for."""
    outcome: Outcome | None = None
    paused_by: PausedBy | None = None
    reason: str = ""
    """Why it turned back, was paused or was aborted."""
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of one machine."""

    minion_id: str
    generation: int
    phase: Phase
    """``booting`` from when the launch is wanted; ``standby`` and ``draining``: it was ready, but gets no (new)
    visitors; ``serving`` otherwise; ``doomed``: it goes."""
    born: float
    since: float
    """Since when ``health`` is what it is; of a booting machine: since when it is waited for."""
    health: Health = "unknown"
    note: str = ""
    """Why the health is not ``yes``."""
    fault: str | None = None
    """Why it will never serve (again)."""
    taint: str | None = None
    """Why it is no longer what its image says: it serves until a newcomer takes its place."""
    ready_since: float | None = None
    """When it was ready for the first time."""
    healthy_since: float | None = None
    """Since when no probe found it unhealthy; None: since ``since``."""
    attached: bool | None = True
    """Whether visitors are sent to it, as the traffic adapter says; None: unknown."""
    drain_since: float | None = None
    sessions: int | None = None
    """Visitors that a draining machine still has; None: unknown."""
    kept_until: float | None = None
    """How long it stays for a rollback; it is no part of the fleet meanwhile."""
    protect: str | None = None
    """Why it must not be taken out while it is healthy."""


class Aged(Protocol):
    """A value with an age and an id: a machine, or what was seen of one."""

    @property
    def minion_id(self) -> str: ...

    @property
    def born(self) -> float: ...


SomeAged = TypeVar("SomeAged", bound=Aged)
AGE = attrgetter("born", "minion_id")
"""The total order of machines: the oldest first, of equally old ones by minion id, which no two share."""


def by_age(machines: Iterable[SomeAged]) -> list[SomeAged]:
    """Return the machines in their total order, so that no choice depends on the order in which they came."""
    return sorted(machines, key=AGE)


def oldest_first(machines: Sequence[SomeAged], likely: int) -> Iterator[SomeAged]:
    """Yield the machines `by_age`. Only the ``likely`` oldest are sorted, and the others where more are asked for.

    A plan takes out a tenth of a fleet at a time: births are found in one quick sort of plain numbers.
    """
    if not 0 < likely < len(machines):
        yield from by_age(machines)
        return
    youngest = sorted([machine.born for machine in machines])[likely - 1]
    yield from by_age(machine for machine in machines if machine.born <= youngest)
    yield from by_age(machine for machine in machines if machine.born > youngest)


@dataclass(frozen=True)
class Limits:
    """What windows and budgets leave to this fleet."""

    launches: int | None = None
    """More launches that may be begun now; None: any number."""
    disruptions: int | None = None
    """More healthy machines that may be taken out now."""
    closed: str | None = None
    """Why nothing may be changed by choice now."""
    until: float | None = None
    """When the window opens or closes."""


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, and why."""

    kind: Literal["launch", "attach", "drain", "keep", "destroy"]
    generation: int
    reason: str
    minion_id: str | None = None
    """The machine it is about; a launch gets its random id later."""
    failed: bool = False
    """The machine failed before it was ready, so that its console is kept."""
    until: float | None = None
    """How long a drained machine is kept."""


@dataclass(frozen=True)
class Plan:
    """What to do now, what to remember, and when to ask again at the latest."""

    actions: tuple[Action, ...]
    rollout: Rollout
    wake: float | None
