"""Diagnose a fleet: pure, from what was seen now and earlier to what has to be mended, and why.

Rules that hold for every diagnosis:

* a machine that cannot be seen is not ill: when no machine answers this master it waits, and after a break it counts
  anew;
* a machine that runs is replaced for its health only after ``unreachable_for``, and if two diagnoses found it so;
* with more sick machines than ``sick_limit`` none is replaced, for whatever reason: an operator has to look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saltext.immutable.fleet.decide.state import Health, by_age
from saltext.immutable.spec.model import Fleet

LEAST_GAP = 60.0
"""Seconds: observations that follow each other sooner, by hand, count as this far apart."""
BREAK = 3.0
"""How many times longer than usual the time between observations may be, before it is a break."""
NAMED = 5
"""Machines that a sentence names."""

Ailment = Literal["stopped", "absent", "unreachable", "unhealthy"]
SAID: Mapping[Ailment, str] = {
    "stopped": "it has stopped",
    "absent": "its provider does not list it",
    "unreachable": "it runs but does not answer",
    "unhealthy": "it answers, and is not healthy",
}
UNWELL = frozenset({"unreachable", "unhealthy"})
"""Ailments of a machine that runs: each may become the other."""


@dataclass(frozen=True)
class MachineSeen:
    """What was seen of one machine that is in the books and is to stay."""

    minion_id: str
    there: Literal["running", "stopped", "absent"]
    """What the provider says."""
    born: float
    health: Health = "unknown"
    """``yes`` and ``no`` are answers; ``unknown``: it did not answer, or not all that was asked."""
    note: str = ""
    taint: str | None = None
    protect: str | None = None
    kept_until: float | None = None
    """Until when it stays for a rollback; it is no part of the fleet."""
    left: bool = False
    """A rollout that ended left it before it was ready, or out of the traffic."""
    cut_off: bool = False
    """It should have visitors, but the traffic adapter does not know it: a reload of HAProxy forgets it."""


@dataclass(frozen=True)
class Sickness:
    """Since when a machine has been sick, as far as observations without a break tell."""

    minion_id: str
    fleet: str
    ailment: Ailment
    note: str
    since: float
    seen_at: float

    @property
    def reason(self) -> str:
        """Return what ails it, in words."""
        return f"{SAID[self.ailment]}: {self.note}" if self.note else SAID[self.ailment]


@dataclass(frozen=True)
class Rhythm:
    """When a fleet was observed last, and how often that happens usually."""

    at: float
    usual: float | None = None

    def broken(self, now: float, patience: float) -> bool:
        """Tell whether the fleet was not observed for so long that nothing is known of the time between.

        Before it is known what is usual, that is taken to be ``patience``.
        """
        usual = max(LEAST_GAP, patience) if self.usual is None else self.usual
        return not 0 <= now - self.at <= BREAK * usual

    def looked(self, now: float) -> Rhythm:
        """Return the rhythm after another observation. It follows slowly: one by hand, or an outage, is not usual."""
        gap = max(LEAST_GAP, now - self.at)
        if self.usual is None:
            return Rhythm(now, gap)
        return Rhythm(now, min(max(gap, 0.8 * self.usual), BREAK * self.usual))


@dataclass(frozen=True)
class FleetSeen:
    """What was seen of a fleet, and what is known besides."""

    at: float
    machines: tuple[MachineSeen, ...]
    heard: bool
    """Any machine at all answered this master, of this fleet or another."""
    settles: float = 0.0
    """Seconds after which one that is absent is gone."""
    leaving: int = 0
    """Machines with an unresolved order to go."""
    unfinished: bool = False
    """An earlier attempt to mend it did not end."""
    closed: str | None = None
    """Why no window is open."""
    obstacle: str | None = None
    """Why not everything could be seen."""


@dataclass(frozen=True)
class Diagnosis:
    """What ails a fleet, and what follows from it."""

    sick: tuple[Sickness, ...]
    """All machines that are sick now: to be remembered."""
    taints: tuple[Sickness, ...] = ()
    """Machines that run, and are to be replaced for their health."""
    reasons: tuple[str, ...] = ()
    """Why the fleet has to be mended; none: it need not be."""
    waits: tuple[str, ...] = ()
    """What is not as it should be, and is left for now."""
    alarm: str | None = None
    """Why nothing may be done: an operator has to look."""


def diagnose(fleet: Fleet, look: FleetSeen, before: Mapping[str, Sickness], broken: bool) -> Diagnosis:
    """Return what has to be mended. ``broken``: nothing is known of the time since ``before`` was observed."""
    look = replace(look, machines=tuple(by_age(look.machines)))
    members = [machine for machine in look.machines if machine.kept_until is None]
    sick = [found for machine in members if (found := _sickness(fleet, machine, look.at, {} if broken else before))]
    if any(one.ailment == "unreachable" for one in sick) and not look.heard:
        known = tuple(one for one in sick if one.ailment != "unreachable")
        return Diagnosis(known, alarm=_deaf(len(sick) - len(known)))
    limit = max(1, fleet.sick_limit.up(fleet.size))
    if len(sick) > limit:
        return Diagnosis(tuple(sick), alarm=_too_many(fleet, sick, limit))
    protected = {machine.minion_id for machine in members if machine.protect is not None}
    ripe = [
        one for one in sick if _ripe(fleet, look, one) and not (one.ailment in UNWELL and one.minion_id in protected)
    ]
    chosen, waiting = _chosen(fleet, look, members, {one.minion_id for one in ripe})
    return Diagnosis(
        tuple(sick),
        tuple(one for one in ripe if one.ailment in UNWELL),
        (*(f"{one.minion_id}: {one.reason}" for one in ripe), *_unsettled(fleet, look, members), *chosen),
        (*(_waits(one, protected) for one in sick if one not in ripe), *waiting, *filter(None, [look.obstacle])),
    )


def _waits(sickness: Sickness, protected: Collection[str]) -> str:
    said = f"{sickness.minion_id}: {sickness.reason}"
    return f"{said}; it is protected" if sickness.minion_id in protected else said


def _sickness(fleet: Fleet, machine: MachineSeen, now: float, before: Mapping[str, Sickness]) -> Sickness | None:
    """Return what ails a machine, and since when; None for one that is healthy, or was left."""
    ailment = _ailment(machine)
    if ailment is None:
        return None
    known = before.get(machine.minion_id)
    goes_on = known is not None and (known.ailment == ailment or {known.ailment, ailment} <= UNWELL)
    since = min(known.since, now) if known is not None and goes_on else now
    return Sickness(machine.minion_id, fleet.name, ailment, machine.note, since, now)


def _ailment(machine: MachineSeen) -> Ailment | None:
    if machine.left:
        return None
    if machine.there != "running":
        return machine.there
    if machine.health == "yes":
        return None
    return "unhealthy" if machine.health == "no" else "unreachable"


def _ripe(fleet: Fleet, look: FleetSeen, sickness: Sickness) -> bool:
    """Tell whether a machine has been sick for long enough to be replaced."""
    lasts = look.at - sickness.since
    if sickness.ailment == "stopped":
        return True
    if sickness.ailment == "absent":
        return lasts >= look.settles
    return lasts > 0 and lasts >= fleet.unreachable_for


def _unsettled(fleet: Fleet, look: FleetSeen, members: Sequence[MachineSeen]) -> Iterator[str]:
    """Say what else only a driver can put right, at any time."""
    if len(members) != fleet.size:
        yield f"{len(members)} machines, {fleet.size} are wanted"
    for machine in members:
        if machine.left:
            yield f"{machine.minion_id}: a rollout that ended left it unready, or out of the traffic"
        elif machine.cut_off and machine.there == "running":
            yield f"{machine.minion_id}: it serves, but is sent no visitors"
    for machine in look.machines:
        if machine.kept_until is not None and look.at >= machine.kept_until:
            yield f"{machine.minion_id}: it was kept for a rollback, and its time is over"
    if look.leaving:
        yield f"machines that have to go are still there: {look.leaving}"
    if look.unfinished:
        yield "an earlier attempt to repair it did not end"


def _chosen(
    fleet: Fleet, look: FleetSeen, members: Sequence[MachineSeen], ripe: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return machines to replace by choice, and those that wait: for a window, or because they are protected."""
    found, waiting = [], []
    for machine in members:
        why = _by_choice(fleet, machine, look.at)
        if why is None or machine.minion_id in ripe:
            continue
        obstacle = f"protected: {machine.protect}" if machine.protect is not None else look.closed
        if obstacle is None:
            found.append(f"{machine.minion_id}: {why}")
        else:
            waiting.append(f"{machine.minion_id}: {why}; {obstacle}")
    return tuple(found), tuple(waiting)


def _by_choice(fleet: Fleet, machine: MachineSeen, now: float) -> str | None:
    if machine.taint is not None:
        return f"tainted: {machine.taint}"
    if fleet.max_age is not None and now >= machine.born + fleet.max_age:
        return f"older than {fleet.max_age:g} s"
    return None


def _deaf(silent: int) -> str:
    return (
        f"{silent} machines run but do not answer, and nobody else answers this master either: it could be the master "
        "or its network, so nothing is done; see whether `salt '*' test.ping` reaches anybody"
    )


def _too_many(fleet: Fleet, sick: Sequence[Sickness], limit: int) -> str:
    # Without what each of them says: this is written down once, as long as it stays the same.
    named = ", ".join(f"{one.minion_id} ({SAID[one.ailment]})" for one in sick[:NAMED])
    more = f" and {len(sick) - NAMED} more" if len(sick) > NAMED else ""
    return (
        f"{len(sick)} machines of {fleet.size} are sick, more than the {limit} that sick_limit allows, so none is "
        f"replaced: {named}{more}; `salt-run fleet.replace <minion>` replaces one, `salt-run fleet.roll {fleet.name}` "
        "what has died"
    )
