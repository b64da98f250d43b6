"""Input and output of a plan: rollouts, machines, limits, actions. Times are seconds since the epoch."""

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
"""Kinds that keep every sound machine of any generation, and launch the last good generation."""


@dataclass(frozen=True)
class Rollout:
    """The recorded walk of a fleet from one generation to another."""

    id: int
    fleet: str
    kind: Kind
    source: int | None
    """Generation of the fleet before; None: it had none."""
    target: int | None
    """Generation of the fleet afterwards, pinned; None: every machine is destroyed."""
    old_size: int
    """Machines of the fleet when this rollout began."""
    started: float
    progress_at: float
    """When the rollout last made progress."""
    direction: Direction = "forward"
    """``back``: new machines are destroyed, old ones stay. ``hold``: failed ones are destroyed, then it is paused.
    ``stop``: machines that do not serve yet are destroyed, the others stay."""
    held_from: Direction | None = None
    """Its direction before ``hold``."""
    step: int = 0
    """The index of the strategy's present step, from 0."""
    step_reached_at: float | None = None
    """Since when all machines of the step are healthy."""
    approved: int = 0
    """How many steps operators approved."""
    switched_at: float | None = None
    """When a blue-green rollout moved the traffic."""
    replaces: int = 0
    """How many machines it had to replace or add when it began; ``max_failures`` in percent is a share of these."""
    failures: Mapping[str, float] = field(default_factory=dict)
    """New machines that failed in this direction, and when."""
    verdict: str = ""
    """From the last plan: how far it is, and what it waits for."""
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
    """``booting``: from its intent to launch until it is ready. ``standby``, ``draining``: it was ready, but gets no
    (new) sessions. ``serving``: otherwise. ``doomed``: it is to be destroyed."""
    born: float
    since: float
    """Since when ``health`` has its value; of a booting machine: since when the driver waits for it."""
    health: Health = "unknown"
    note: str = ""
    """Why the health is not ``yes``."""
    fault: str | None = None
    """Why it can never serve (again)."""
    taint: str | None = None
    """Why it is tainted: it serves until a new machine takes its place."""
    ready_since: float | None = None
    """When it was ready for the first time."""
    healthy_since: float | None = None
    """Since when no probe found it unhealthy; None: since ``since``."""
    attached: bool | None = True
    """Whether the traffic adapter sends it traffic; None: unknown."""
    drain_since: float | None = None
    sessions: int | None = None
    """Sessions that a draining machine still has; None: unknown."""
    kept_until: float | None = None
    """Until when it is kept for a rollback; it does not belong to the fleet meanwhile."""
    protect: str | None = None
    """Why it must not be removed while it is healthy."""
    outdated: bool = False
    """Its image has an older version of this pack, which cannot prove its answers, so its health stays unknown."""
    blameless: bool = False
    """A fault of it says nothing of its image, and is no failure of a rollout: its host has booted since it was healthy
    last."""


class Aged(Protocol):
    """A value with an age and an id: a machine, or what was observed of one."""

    @property
    def minion_id(self) -> str: ...

    @property
    def born(self) -> float: ...


SomeAged = TypeVar("SomeAged", bound=Aged)
AGE = attrgetter("born", "minion_id")
"""The total order of machines: by age, the oldest first, then by minion id."""


def by_age(machines: Iterable[SomeAged]) -> list[SomeAged]:
    """Return the machines in their total order, so that no choice depends on the order of the input."""
    return sorted(machines, key=AGE)


def oldest_first(machines: Sequence[SomeAged], likely: int) -> Iterator[SomeAged]:
    """Yield the machines `by_age`. Only the ``likely`` oldest are sorted, and the others where more are asked for.

    (A plan usually removes a tenth of a fleet, and sorting plain numbers is quick.)
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
    """How many more launches may be started now; None: any number."""
    disruptions: int | None = None
    """How many more healthy machines may be removed now; None: any number."""
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
    """Until when a drained machine is kept."""


@dataclass(frozen=True)
class Plan:
    """What to do now, the rollout afterwards, and when to plan again at the latest."""

    actions: tuple[Action, ...]
    rollout: Rollout
    wake: float | None
