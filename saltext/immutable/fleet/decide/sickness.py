"""Diagnose a fleet from what was observed now and earlier: what must be repaired, and why. Pure.

Rules that hold for every diagnosis:

* a machine that cannot be observed is not sick: if no machine answers this master, nothing is done, and after a
  break in the observations the time counts from the start;
* a machine that runs is replaced for its health only after ``unreachable_for`` (after the boot of its host:
  ``ready_within``), and if two diagnoses found it so;
* with more sick machines than ``sick_limit`` none is replaced for any reason: an operator has to decide. One that is
  gone does not count while as many as the fleet wants are healthy: nothing is launched in its place;
* that a host boots is no sickness of a fleet: its machines are waited for during ``ready_within``, and replaced if they
  do not come back. They are of their host until they are healthy once: they do not count for ``sick_limit``, and their
  silence counts even if no machine answers, because nothing is removed before a new machine has answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saltext.immutable.fleet.decide.state import Health, by_age
from saltext.immutable.spec.model import Fleet

LEAST_GAP = 60.0
"""The shortest time in seconds that counts as the usual one between two observations."""
BREAK = 3.0
"""A time between observations that is so many times the usual one is a break."""
NAMED = 5
"""How many machines a sentence names."""

Ailment = Literal["stopped", "absent", "unreachable", "unhealthy"]
SAID: Mapping[Ailment, str] = {
    "stopped": "it has stopped",
    "absent": "its provider does not list it",
    "unreachable": "it runs but does not answer",
    "unhealthy": "it answers, and is not healthy",
}
UNWELL = frozenset({"unreachable", "unhealthy"})
"""Ailments of a machine that runs. A change from one to the other does not restart the time."""


def without_id(note: str, minion_id: str) -> str:
    """Return a sentence about a machine without its id at the start, to be printed behind it."""
    return note.removeprefix(minion_id).lstrip(": ")


@dataclass(frozen=True)
class MachineSeen:
    """What was observed of one machine that is in the store and is not doomed."""

    minion_id: str
    there: Literal["running", "stopped", "absent"]
    """Its state in the provider's list."""
    born: float
    health: Health = "unknown"
    """``unknown``: it did not answer, or not to every question."""
    note: str = ""
    taint: str | None = None
    protect: str | None = None
    kept_until: float | None = None
    """Until when it is kept for a rollback; it does not belong to the fleet meanwhile."""
    left: bool = False
    """A rollout ended before it was ready, or while it had no traffic."""
    cut_off: bool = False
    """It should have traffic, but the traffic adapter does not know it. (A reload of HAProxy forgets it.)"""
    outdated: bool = False
    """Its image has an older version of this pack, which cannot prove its answers: it is left for the next roll."""
    restarted: float = 0.0
    """When its host started it again, if it was never found healthy since; else 0."""
    ended_with_host: bool = False
    """It does not run because its host has booted, which may start it again."""

    @property
    def of_host(self) -> bool:
        """Tell whether its host has booted since it was healthy last."""
        return self.ended_with_host or self.restarted > 0


@dataclass(frozen=True)
class Sickness:
    """Since when a machine has been sick, in observations without a break."""

    minion_id: str
    fleet: str
    ailment: Ailment
    note: str
    since: float
    seen_at: float

    @property
    def reason(self) -> str:
        """Return what is wrong with it, in words that do not name it again."""
        said, note = SAID[self.ailment], without_id(self.note, self.minion_id)
        return said if note in said else f"{said}: {note}"


@dataclass(frozen=True)
class Rhythm:
    """When a fleet was observed last, and the usual time between two observations."""

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
    """What was observed of a fleet."""

    at: float
    machines: tuple[MachineSeen, ...]
    heard: bool
    """Whether any machine, of this fleet or another, answered this master."""
    settles: float = 0.0
    """Seconds of absence from lists after which a machine is gone."""
    leaving: int = 0
    """How many machines are doomed."""
    unfinished: bool = False
    """Whether an earlier attempt to repair it did not end."""
    closed: str | None = None
    """Why no window is open."""
    obstacle: str | None = None
    """Why not everything could be observed."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a fleet, and what follows from it."""

    sick: tuple[Sickness, ...]
    """All machines that are sick now; the store keeps them for the next diagnosis."""
    taints: tuple[Sickness, ...] = ()
    """Machines to replace that run, or that their host may still start."""
    reasons: tuple[str, ...] = ()
    """Why the fleet must be repaired; empty: nothing to do."""
    waits: tuple[str, ...] = ()
    """What is wrong and is left for now."""
    alarm: str | None = None
    """Why nothing may be done: an operator has to decide."""


def diagnose(fleet: Fleet, look: FleetSeen, before: Mapping[str, Sickness], broken: bool) -> Diagnosis:
    """Return what must be repaired. ``broken``: the observations had a break since ``before``."""
    look = replace(look, machines=tuple(by_age(look.machines)))
    members = [machine for machine in look.machines if machine.kept_until is None]
    settled = [machine for machine in members if not _boots(fleet, machine, look)]
    sick = [found for machine in settled if (found := _sickness(fleet, machine, look.at, {} if broken else before))]
    of_hosts = {machine.minion_id: machine for machine in members if machine.of_host}
    of_fleet = [one for one in sick if one.minion_id not in of_hosts]
    if any(one.ailment == "unreachable" for one in of_fleet) and not look.heard:
        known = tuple(one for one in sick if one.ailment != "unreachable")
        return Diagnosis(known, alarm=_nobody_answers(len(sick) - len(known)))
    limit = max(1, fleet.sick_limit.up(fleet.size))
    complete = sum(machine.health == "yes" and not machine.left for machine in members) >= fleet.size
    of_fleet = [one for one in of_fleet if not (complete and one.ailment == "absent")]
    if len(of_fleet) > limit:
        return Diagnosis(tuple(sick), alarm=_too_many(fleet, of_fleet, limit))
    protected = {machine.minion_id for machine in members if machine.protect is not None}
    due = [
        one
        for one in sick
        if _long_enough(fleet, look, one, of_hosts.get(one.minion_id))
        and not (one.ailment in UNWELL and one.minion_id in protected)
    ]
    chosen, waiting = _chosen(fleet, look, members, {one.minion_id for one in due})
    return Diagnosis(
        tuple(sick),
        tuple(one for one in due if one.ailment in UNWELL or one.minion_id in of_hosts),
        (*(f"{one.minion_id}: {one.reason}" for one in due), *_unsettled(fleet, look, members), *chosen),
        (
            *(_waits(one, protected) for one in sick if one not in due),
            *waiting,
            *(f"{one.minion_id}: it was started again, and boots" for one in members if _boots(fleet, one, look)),
            *_outdated(members),
            *filter(None, [look.obstacle]),
        ),
    )


def _boots(fleet: Fleet, machine: MachineSeen, look: FleetSeen) -> bool:
    """Tell whether a machine that is not healthy was started again so lately that it may still boot."""
    silent = machine.there == "running" and machine.health != "yes"
    return silent and look.at < machine.restarted + fleet.strategy.ready_within


def _outdated(members: Sequence[MachineSeen]) -> Iterator[str]:
    yield from (f"{one.minion_id}: {one.note}" for one in members if one.outdated and one.there == "running")


def _waits(sickness: Sickness, protected: Collection[str]) -> str:
    said = f"{sickness.minion_id}: {sickness.reason}"
    return f"{said}; it is protected" if sickness.minion_id in protected else said


def _sickness(fleet: Fleet, machine: MachineSeen, now: float, before: Mapping[str, Sickness]) -> Sickness | None:
    """Return what is wrong with a machine, and since when; None if it is healthy, or left by a rollout."""
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
    if machine.health == "yes" or machine.outdated:
        return None
    return "unhealthy" if machine.health == "no" else "unreachable"


def _long_enough(fleet: Fleet, look: FleetSeen, sickness: Sickness, of_host: MachineSeen | None) -> bool:
    """Tell whether a machine has been sick for long enough to be replaced.

    ``of_host``: the machine, if its host has booted since it was healthy last.
    """
    lasts = look.at - sickness.since
    if sickness.ailment == "stopped":
        return not (of_host and of_host.ended_with_host) or lasts >= fleet.strategy.ready_within
    if sickness.ailment == "absent":
        return lasts >= look.settles
    return lasts > 0 and (of_host is not None or lasts >= fleet.unreachable_for)


def _unsettled(fleet: Fleet, look: FleetSeen, members: Sequence[MachineSeen]) -> Iterator[str]:
    """Yield why a driver is needed apart from sick machines, at any time."""
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
    fleet: Fleet, look: FleetSeen, members: Sequence[MachineSeen], due: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return why healthy machines must be replaced, and why others wait: for a window, or protected."""
    found, waiting = [], []
    for machine in members:
        why = _by_choice(fleet, machine, look.at)
        if why is None or machine.minion_id in due:
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


def _nobody_answers(silent: int) -> str:
    return (
        f"{silent} machines run but do not answer, and nobody else answers this master either: it could be the master "
        "or its network, so nothing is done; see whether `salt '*' test.ping` reaches anybody"
    )


def _too_many(fleet: Fleet, sick: Sequence[Sickness], limit: int) -> str:
    # without their notes, so that the alarm stays the same and is recorded once
    named = ", ".join(f"{one.minion_id} ({SAID[one.ailment]})" for one in sick[:NAMED])
    more = f" and {len(sick) - NAMED} more" if len(sick) > NAMED else ""
    return (
        f"{len(sick)} machines of {fleet.size} are sick, more than the {limit} that sick_limit allows, so none is "
        f"replaced: {named}{more}; `salt-run fleet.replace <minion>` replaces one, `salt-run fleet.roll {fleet.name}` "
        "replaces the dead ones"
    )
