"""Work out what has to be written of machines that run but are not in the store: it is older than they are.

That happens where a backup of the store was put back, where a database failed over to a copy that lost the last
moments, or where the store was lost. The tags of machines are the truth about them: one that carries our installation
and a fleet of the pillar is that fleet's, with the generation and image of its tag. It is believed to serve as the
traffic adapter says, it counts as healthy once it proves image and health, and it is replaced like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from saltext.immutable.fleet.books.ledger import Generation, Record, TrafficIntent
from saltext.immutable.fleet.decide.generations import current_generation, generation_of
from saltext.immutable.fleet.drive.track import phase
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet, ProviderSpec
from saltext.immutable.traffic import TrafficStatus

UNKNOWN = "it runs, and the store did not know it: the store is older than the machine"
GONE = "it is gone, and the store is older than the machines"
SERVES = "it gets traffic, and the store did not know that: the store is older"
KEYLESS = "its minion key is gone from this master, so it can never answer again"
NAMED = 5
"""How many machines a sentence names."""
_INTENTS: Mapping[str, TrafficIntent] = {"in": "in", "draining": "drain", "out": "out"}


@dataclass(frozen=True)
class Listed:
    """A machine that runs, and the provider that lists it."""

    instance: Instance
    provider: ProviderSpec


@dataclass(frozen=True)
class Books:
    """What the store has of a fleet."""

    generations: Mapping[int, Generation]
    records: Mapping[str, Record]
    unsound: Collection[str]
    """Machines that will be replaced: tainted, or without a key on this master."""
    size: int
    """How many machines are wanted."""


@dataclass(frozen=True)
class Recovery:
    """What has to be written to the books of a fleet."""

    records: tuple[Record, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Minion id to what shows that the store is older than it should be."""
    generations: tuple[Generation, ...] = ()
    """Those that are missing."""
    current: int | None = None
    """The generation that most machines run; None: the books are not older than the machines."""
    size: int | None = None
    """How many sound machines serve with it, if that is more than are wanted: the fleet was scaled."""


def recovery(
    fleet: Fleet,
    books: Books,
    unknown: Sequence[Listed],
    known: Sequence[Instance],
    traffic: Mapping[str, TrafficStatus] | None,
    proven: Collection[str],
    now: float,
) -> Recovery:
    """Return what has to be written of the machines that run.

    ``unknown``, ``known``: machines that the store never knew, and those that it knows; ``traffic``: what the traffic
    adapter says; None: the fleet has none, or it does not answer, and unknown machines are believed to get traffic;
    ``proven``: machines that boot, as the store says, and that proved to be healthy just now.
    """
    images, records = {number: one.image for number, one in books.generations.items()}, books.records
    written, missing, reasons = dict[str, Record](), list[Generation](), dict[str, str]()
    for one in sorted(unknown, key=lambda one: (one.instance.born, one.instance.minion_id)):
        instance = one.instance
        number = generation_of(instance.image, instance.generation, images)
        if number not in images:
            images[number] = instance.image
            missing.append(Generation(fleet.name, number, instance.image, one.provider, instance.born, fleet.traffic))
        written[instance.minion_id] = _record(instance, number, traffic)
        reasons[instance.minion_id] = UNKNOWN
    for instance in known:
        before = records[instance.minion_id]
        status = (traffic or {}).get(instance.minion_id)
        if status is not None and status.state == "in" and phase(before) != "serving":
            written[instance.minion_id] = _serving(before, instance, now)
            if phase(before) != "draining":  # that of one that is draining may not have been turned off yet
                reasons[instance.minion_id] = SERVES
        elif instance.minion_id in proven:
            written[instance.minion_id] = replace(_serving(before, instance, now), healthy_since=now)
    running = {**{one.minion_id: records[one.minion_id] for one in known}, **written}
    serving = {minion_id: one.generation for minion_id, one in running.items() if phase(one) == "serving"}
    current = current_generation(serving) if reasons else None
    sound = [minion_id for minion_id, number in serving.items() if number == current and minion_id not in books.unsound]
    size = len(sound) if len(sound) > books.size else None
    return Recovery(tuple(written.values()), reasons, tuple(missing), current, size)


def without_absent(found: Recovery, records: Mapping[str, Record], listed: Collection[str]) -> Recovery:
    """Return what has to be written, with machines that are gone and never were ready as doomed.

    ``listed``: the minion ids of all machines that are there. Otherwise a rollout would launch such a machine a second
    time under its id. One that was ready once is left to the next rollout, which makes sure that it is gone.
    """
    absent = [one for one in records.values() if one.ready_since is None and one.minion_id not in listed]
    doomed = [replace(one, intent="doomed", reason=GONE) for one in absent if not one.doomed]
    return replace(found, records=(*found.records, *doomed)) if found.reasons else found


def _record(instance: Instance, generation: int, traffic: Mapping[str, TrafficStatus] | None) -> Record:
    state = "in" if traffic is None else traffic[instance.minion_id].state if instance.minion_id in traffic else "out"
    state = state if instance.running else "out"
    return Record(
        instance.minion_id,
        instance.fleet,
        generation,
        "launched",
        instance.born,
        instance.ref,
        ready_since=instance.born,
        traffic=_INTENTS[state],
    )


def _serving(record: Record, instance: Instance, now: float) -> Record:
    since = now if record.ready_since is None else record.ready_since
    served = replace(record, ready_since=since, traffic="in", drain_since=None, kept_until=None)
    return replace(served, intent="launched", ref=instance.ref)


def warning(fleet: str, found: Recovery) -> str | None:
    """Return a sentence if the store is older than the machines of a fleet, or None."""
    if not found.reasons:
        return None
    return (
        f"the store is older than the machines: {_machines(found.reasons)}, and it does not know that; the next "
        f"command on the fleet writes that back, `salt-run fleet.adopt_store {fleet}` does it now"
    )


def alarm(fleet: str, found: Recovery) -> str | None:
    """Return a sentence if machines were written back, or None."""
    if not found.reasons:
        return None
    return (
        f"the store was older than the machines: {_machines(found.reasons)}, and it did not know that; they are left "
        f"alone. `salt-run fleet.adopt_store {fleet}` writes their images back, too; `salt-run fleet.plan {fleet}` "
        "shows what a roll would replace, since channels may name older images"
    ) + (f". {found.size} of them serve, so that is its size now" if found.size is not None else "")


def lost(fleet: str, foreign: Sequence[Instance]) -> str | None:
    """Return a sentence if machines of a fleet run that another store launched, or None."""
    if not foreign:
        return None
    return (
        f"the store of fleet {fleet} was lost: {_machines([one.minion_id for one in foreign])} under another "
        "installation id, with keys that this master accepted; `salt-run fleet.adopt_store` writes the store again"
    )


def _machines(ids: Collection[str]) -> str:
    named = sorted(ids)
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{', '.join(named[:NAMED])}{more} {'runs' if len(named) == 1 else 'run'}"


def distinct(specs: Iterable[ProviderSpec]) -> list[ProviderSpec]:
    """Return the specs (which cannot be hashed) without repetitions."""
    found: list[ProviderSpec] = []
    for spec in specs:
        if spec not in found:
            found.append(spec)
    return found
