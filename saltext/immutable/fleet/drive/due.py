"""Submit the calls that are due: to the provider, to the traffic, and to each machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from saltext.immutable.fleet.decide.steps import goal
from saltext.immutable.fleet.drive.run import Run
from saltext.immutable.fleet.drive.threads import CHANGES, Call, Effects, Task
from saltext.immutable.fleet.drive.track import NEVER, Track

_ROUTES = frozenset({"attach", "drain"})


def submit_due(run: Run, effects: Effects, now: float) -> None:
    """Submit the calls that are due. Where the provider's limit is reached, the machine waits in a queue."""
    timers, tracks = run.timers, run.picture.tracks
    if timers.is_time_to_list(now):
        effects.submit(Task("list", "", now), run.world.list)
    if timers.is_time_for_traffic(now):
        effects.submit(Task("traffic", "", now), run.world.status)
    for track in timers.take_due(tracks, now):
        _submit_for(run, effects, track, now)
    while run.changing < run.world.concurrency:
        waiting = timers.next_waiting(tracks)
        if waiting is None:
            return
        _submit_for(run, effects, waiting, now)


def _submit_for(run: Run, effects: Effects, track: Track, now: float) -> None:
    """Submit the calls that are due for one machine."""
    name = track.record.minion_id
    if track.expire_probe(now):
        run.picture.changed_by_time(name)
    for kind, call in _due(run, track, now):
        if kind in CHANGES and run.changing >= run.world.concurrency:
            run.timers.wait_for_a_call(name)
            continue
        run.changing += kind in CHANGES
        track.busy.add(kind)
        effects.submit(Task(kind, name, now), call)
    run.timers.set(track, _next_of(run, track, now))


def _due(run: Run, track: Track, now: float) -> Iterator[tuple[Call, Callable[[], Any]]]:
    record, world = track.record, run.world
    idle = not track.busy & CHANGES
    if not record.doomed:
        if "verify" not in track.busy and now >= track.verify_at:
            track.verify_at = NEVER
            yield "verify", partial(world.contested, record.minion_id)
        if record.ref is None and track.listed and track.fault is None and idle and now >= track.retry_at:
            yield "launch", partial(world.launch, record)
        elif track.instance is not None and "probe" not in track.busy and now >= track.probe_at:
            track.asked = now
            yield "probe", partial(world.probe, record, track.instance.address, track.proven)
        if not track.busy & _ROUTES and now >= track.route_at:
            yield from _routes(run, track)
    elif idle and track.absent_for(now, world.settles):
        yield "forget", partial(world.forget, record.minion_id)
    elif not track.busy & {"destroy", "forget"} and record.ref is not None and now >= track.retry_at:
        yield "destroy", partial(world.destroy, record)


def _routes(run: Run, track: Track) -> Iterator[tuple[Call, Callable[[], Any]]]:
    address = track.instance.address if track.instance is not None else None
    if track.to_attach and address is not None:
        yield "attach", partial(run.world.attach, track.record, address)
    elif track.to_drain:
        floor = goal(run.fleet, run.rollout).floor
        yield "drain", partial(run.world.drain, track.record, floor if track.health == "yes" else 0)


def _next_of(run: Run, track: Track, now: float) -> float:
    """Return when a machine is due next even if no call returns. (What is due now runs, or waits for a call.)"""
    if track.record.doomed:
        gone = NEVER if track.absent_since is None else track.absent_since + run.world.settles
        times = [track.retry_at, gone]
    else:
        times = [track.retry_at, track.probe_at, track.verify_at, track.overdue_at(), track.route_at]
    return min((at for at in times if at > now), default=NEVER)
