"""Look at a fleet: what its providers list, what its machines answer, and whether anybody answers at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.decide.checks import PROBE_WITHIN
from saltext.immutable.fleet.decide.diagnosis import FleetSeen, MachineSeen
from saltext.immutable.fleet.drive.effects import AT_A_TIME, Task
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.drive.track import OUT
from saltext.immutable.fleet.drive.world import Probe, World
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.minions import NoAnswer
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet
from saltext.immutable.text import plain

WITNESSES = 8
"""Machines of other fleets that are asked whether this master is heard at all."""
PATIENCE = PROBE_WITHIN + 5.0
"""Seconds for the answers of as many machines as are asked at once: all of 100 have 4 times as long as those of 20."""

Stopped = Callable[[], bool]


def look(operations: Operations, fleet: Fleet, stopped: Stopped) -> FleetSeen:
    """Return what one look tells; raise where a provider does not list its machines."""
    ledger = operations.ledger(fleet.name)
    world, records = operations.world(fleet, ledger), ledger.records()
    instances = {one.minion_id: one for one in world.list()}
    staying = [record for record in records.values() if not record.doomed]
    members = [one for one in staying if one.kept_until is None and not _is_left(one)]
    probes = _probed(operations, world, members, instances, stopped)
    cut_off, obstacle = _cut_off(world, members)
    taints, protections = ledger.tainted(), ledger.protected()
    return FleetSeen(
        operations.clock(),
        tuple(_sight(one, instances.get(one.minion_id), probes, taints, protections, cut_off) for one in staying),
        _heard(operations, fleet, list(probes.values()), stopped),
        world.settles,
        leaving=len(records) - len(staying),
        unfinished=ledger.unfinished() is not None,
        closed=operations.closed(fleet),
        obstacle=obstacle,
    )


def _sight(
    record: Record,
    instance: Instance | None,
    probes: Mapping[str, Probe],
    taints: Mapping[str, str],
    protections: Mapping[str, str],
    cut_off: Collection[str],
) -> MachineSeen:
    probe = probes.get(record.minion_id, Probe("unknown"))
    return MachineSeen(
        record.minion_id,
        "absent" if instance is None else "running" if instance.running else "stopped",
        record.born,
        probe.health,
        probe.note,
        taints.get(record.minion_id),
        protections.get(record.minion_id),
        record.kept_until,
        left=_is_left(record),
        cut_off=record.minion_id in cut_off,
    )


def _cut_off(world: World, members: Sequence[Record]) -> tuple[frozenset[str], str | None]:
    """Return who should have visitors and is sent none, or why nobody knows."""
    if not world.routed:
        return frozenset(), None
    try:
        standing = world.standing()
    except CommandExecutionError as err:
        return frozenset(), f"nobody knows who has visitors: {plain(str(err))}"
    wanted = [one.minion_id for one in members if one.traffic == "in"]
    return frozenset(one for one in wanted if standing.get(one, OUT).state != "in"), None


def _is_left(record: Record) -> bool:
    """Tell whether a rollout that ended left a machine unready, or out of the traffic though nobody keeps it."""
    return record.ready_since is None or (record.traffic != "in" and record.kept_until is None)


def _probed(
    operations: Operations,
    world: World,
    records: Sequence[Record],
    instances: Mapping[str, Instance],
    stopped: Stopped,
) -> dict[str, Probe]:
    """Ask every machine that runs; no answer in time is no answer."""
    running = [one for one in records if (found := instances.get(one.minion_id)) and found.running]
    calls = {one.minion_id: partial(world.probe, one, instances[one.minion_id].address, False) for one in running}
    answers = _asked(operations, calls, stopped)
    late = Probe("unknown", "a look at it takes too long")
    return {minion_id: answers.get(minion_id, late) for minion_id in calls}


def _heard(operations: Operations, fleet: Fleet, probes: Sequence[Probe], stopped: Stopped) -> bool:
    """Tell whether any machine answers this master; others are asked only if these are all silent."""
    if any(probe.health != "unknown" for probe in probes) or not probes:
        return True
    witnesses: list[str] = []
    for name in operations.names():
        records = operations.ledger(name).records().values() if name != fleet.name else ()
        witnesses += [one.minion_id for one in records if one.ready_since is not None and not one.doomed][-2:]
    calls = {one: partial(operations.minions.image_of, one, PROBE_WITHIN) for one in witnesses[:WITNESSES]}
    return any(not isinstance(answer, NoAnswer) for answer in _asked(operations, calls, stopped).values())


def _asked(operations: Operations, calls: Mapping[str, Callable[[], Any]], stopped: Stopped) -> dict[str, Any]:
    """Return what the calls return, or the error of Salt's that they raised, as far as they come back in time."""
    effects, clock = operations.effects(stopped), operations.clock
    found: dict[str, Any] = {}
    try:
        for minion_id, call in calls.items():
            effects.submit(Task("probe", minion_id, clock()), call)
        deadline = clock() + PATIENCE * -(-len(calls) // AT_A_TIME)
        while len(found) < len(calls) and clock() < deadline:
            if stopped():
                raise Interrupted("stopped while looking; the next look begins anew")
            for one in effects.wait(deadline)[0]:
                found[one.task.minion_id] = one.value if one.error is None else one.error
    finally:
        effects.close()
    return found
