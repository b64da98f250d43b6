"""Observe a fleet: what its providers list, what its machines answer, and whether any machine answers at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.decide.sickness import FleetSeen, MachineSeen
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.drive.probing import PROBE_WITHIN
from saltext.immutable.fleet.drive.threads import AT_A_TIME, Task
from saltext.immutable.fleet.drive.track import OUT
from saltext.immutable.fleet.drive.world import Probe, World
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.minions import NoAnswer
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet
from saltext.immutable.text import plain

MAX_WITNESSES = 8
"""How many machines of other fleets are asked whether they answer this master."""
ANSWER_WITHIN = PROBE_WITHIN + 5.0
"""Seconds for the answers of one batch: with batches of AT_A_TIME, four batches have four times as long."""

Stopped = Callable[[], bool]
"""Tells whether to stop: after Ctrl-C."""


def observe(operations: Operations, fleet: Fleet, stopped: Stopped) -> FleetSeen:
    """Return what is seen of a fleet now.

    Raises ``CommandExecutionError`` if a provider cannot list its machines, ``Interrupted`` if told to stop.
    """
    ledger = operations.ledger(fleet.name)
    world, records = operations.world(fleet, ledger), ledger.records()
    instances = {one.minion_id: one for one in world.list()}
    staying = [record for record in records.values() if not record.doomed]
    members = [one for one in staying if one.kept_until is None and not _is_left(one)]
    probes = _probe_all(operations, world, members, instances, stopped)
    cut_off, obstacle = _cut_off(world, members)
    taints, protections = ledger.tainted(), ledger.protected()
    return FleetSeen(
        operations.clock(),
        tuple(_seen(one, instances.get(one.minion_id), probes, taints, protections, cut_off) for one in staying),
        _any_answers(operations, fleet, list(probes.values()), stopped),
        world.settles,
        leaving=len(records) - len(staying),
        unfinished=ledger.unfinished() is not None,
        closed=operations.closed(fleet),
        obstacle=obstacle,
    )


def _seen(
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
        taints.get(record.minion_id) or (instance.damaged if instance else None),
        protections.get(record.minion_id),
        record.kept_until,
        left=_is_left(record),
        cut_off=record.minion_id in cut_off,
        outdated=probe.outdated,
        restarted=instance.restarted if instance and instance.restarted != record.restarted else 0.0,
        ended_with_host=instance is not None and instance.ended_with_host,
    )


def _cut_off(world: World, members: Sequence[Record]) -> tuple[frozenset[str], str | None]:
    """Return the machines that should have traffic and get none; or why that cannot be read."""
    if not world.routed:
        return frozenset(), None
    try:
        states = world.status()
    except CommandExecutionError as err:
        return frozenset(), f"the state of the traffic cannot be read: {plain(str(err))}"
    attached = [one.minion_id for one in members if one.traffic == "in"]
    return frozenset(one for one in attached if states.get(one, OUT).state != "in"), None


def _is_left(record: Record) -> bool:
    """Tell whether an ended rollout left a machine before it was ready, or drained but not kept for a rollback."""
    return record.ready_since is None or (record.traffic != "in" and record.kept_until is None)


def _probe_all(
    operations: Operations,
    world: World,
    records: Sequence[Record],
    instances: Mapping[str, Instance],
    stopped: Stopped,
) -> dict[str, Probe]:
    """Probe every machine that runs; a late answer counts as unknown."""
    running = [one for one in records if (found := instances.get(one.minion_id)) and found.running]
    calls = {one.minion_id: partial(world.probe, one, instances[one.minion_id].address, False) for one in running}
    answers = _call_all(operations, calls, stopped)
    late = Probe("unknown", "it did not answer in time")
    return {minion_id: answers.get(minion_id, late) for minion_id in calls}


def _any_answers(operations: Operations, fleet: Fleet, probes: Sequence[Probe], stopped: Stopped) -> bool:
    """Tell whether any machine answers this master. Machines of other fleets are asked only if none of these does."""
    if any(probe.health != "unknown" or probe.outdated for probe in probes) or not probes:
        return True
    witnesses: list[str] = []
    for name in operations.names():
        records = operations.ledger(name).records().values() if name != fleet.name else ()
        witnesses += [one.minion_id for one in records if one.ready_since is not None and not one.doomed][-2:]
    calls = {one: partial(operations.minions.image_of, one, PROBE_WITHIN) for one in witnesses[:MAX_WITNESSES]}
    return any(not isinstance(answer, NoAnswer) for answer in _call_all(operations, calls, stopped).values())


def _call_all(operations: Operations, calls: Mapping[str, Callable[[], Any]], stopped: Stopped) -> dict[str, Any]:
    """Return the results of the calls that end in time; of one that raised a ``SaltException``, the exception."""
    effects, clock = operations.effects(stopped), operations.clock
    found: dict[str, Any] = {}
    try:
        for minion_id, call in calls.items():
            effects.submit(Task("probe", minion_id, clock()), call)
        deadline = clock() + ANSWER_WITHIN * -(-len(calls) // AT_A_TIME)
        while len(found) < len(calls) and clock() < deadline:
            if stopped():
                raise Interrupted("stopped while the fleet was observed; run `salt-run fleet.reconcile` again")
            for one in effects.wait(deadline)[0]:
                found[one.task.minion_id] = one.value if one.error is None else one.error
    finally:
        effects.close()
    return found
