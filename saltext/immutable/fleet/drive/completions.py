"""Update a run from completed calls, by their kind, and from Salt's events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict

from saltext.immutable.fleet.books.ledger import Record, TrafficIntent
from saltext.immutable.fleet.drive.probing import PROBE_SERVING, patience
from saltext.immutable.fleet.drive.run import Run
from saltext.immutable.fleet.drive.threads import CHANGES, Completion
from saltext.immutable.fleet.drive.timers import LISTED
from saltext.immutable.fleet.drive.track import NEVER, OUT, RETRY, Track
from saltext.immutable.minions import FORGED, Event, NoAnswer
from saltext.immutable.providers import Instance

LIST_EVERY = 2.0
LIST_EVERY_DOOMED = 0.5
TRAFFIC_EVERY = 5.0
TRAFFIC_EVERY_MOVING = 1.0
"""Seconds between two calls for the state of the traffic while machines are attached or drained."""

Handler = Callable[[Run, Track, Completion, float], None]
"""Updates one machine from a completed call; the last argument is the time now."""


def on_event(run: Run, event: Event) -> None:
    """Update a run from an event about a machine. It is only a hint: any minion can send it."""
    track = run.picture.tracks.get(event.minion_id)
    if track is None or track.record.doomed:
        return
    if event.kind == "denied":
        track.on_key_denied(run.clock())
    elif event.kind == "forged":
        if not track.forged:  # once a run: whoever forges answers can send them all day
            track.forged = True
            run.transaction.note("alarm", FORGED, event.minion_id)
        return
    elif not track.started:  # only the first start event counts: a minion could send them all day
        track.started, track.probe_at = True, run.clock()
        track.busy.discard("probe")  # a probe from before the minion started may hang for long
    run.picture.changed(event.minion_id)


def on_completion(run: Run, completion: Completion, now: float) -> None:
    """Update a run from a completed call. ``now``: the time of this step of the loop."""
    task = completion.task
    kind = task.kind
    run.changing -= kind in CHANGES
    if kind in ("list", "traffic", "probe") and not run.valid_since <= task.asked <= now:
        _ask_again(run, completion, now)
    elif kind == "list":
        _on_list(run, completion)
    elif kind == "traffic":
        _on_traffic(run, completion)
    elif kind != "relaunch" and task.minion_id in run.picture.tracks:  # `fleet.relaunch` has a loop of its own
        track = run.picture.tracks[task.minion_id]
        track.busy.discard(kind)
        HANDLERS[kind](run, track, completion, run.clock())
        run.picture.changed(task.minion_id)


def observe_list(run: Run, instances: list[Instance], asked: float) -> None:
    """Update a run from a list that was asked for at ``asked``; destroy what earlier rollouts left over.

    A machine that the store never knew is left alone: the store is older than it. The next command on the fleet writes
    it back (`Fleets.recover`).
    """
    now = run.clock()
    unknown = {one.minion_id: one for one in run.picture.unknown_instances(instances, asked)}
    left = unknown if run.rollout.kind == "destroy" else run.transaction.in_journal(unknown) if unknown else ()
    for instance in (unknown[minion_id] for minion_id in sorted(left)):
        reason = "it is left over from an earlier rollout"
        record = Record(instance.minion_id, run.fleet.name, instance.generation, "doomed", instance.born, reason=reason)
        run.picture.add(Track(record, since=now, probe_at=NEVER))
        run.transaction.note("destroy", reason, instance.minion_id)
    if run.picture.update_from_list(instances, asked, now, run.world.settles):
        run.progressed(now)  # its machines are waited for


def _ask_again(run: Run, completion: Completion, now: float) -> None:
    """Ignore an answer from before the clock jumped, and ask again."""
    if completion.task.kind == "list":
        run.timers.list_soon(now, len(run.picture))
    elif completion.task.kind == "traffic":
        run.timers.traffic_at = now


def _on_list(run: Run, completion: Completion) -> None:
    pause = max(LIST_EVERY_DOOMED if run.picture.any_doomed else LIST_EVERY, len(run.picture) / LISTED)
    run.timers.list_at = min(run.timers.list_at, run.clock() + pause)
    if completion.error is None:
        observe_list(run, completion.value, completion.task.asked)


def _on_traffic(run: Run, completion: Completion) -> None:
    now = run.clock()
    machines = run.picture.machines()
    moving = any(m.phase == "draining" or (m.phase == "serving" and not m.attached) for m in machines)
    pause = TRAFFIC_EVERY_MOVING if moving else TRAFFIC_EVERY
    run.timers.traffic_at = min(run.timers.traffic_at, now + pause)
    for name, track in run.picture.tracks.items():
        status = None if completion.error is not None else completion.value.get(name, OUT)
        if completion.task.asked < track.route_at - RETRY:
            continue  # it was attached or drained since
        was_in = track.traffic_status is not None and track.traffic_status.state == "in"
        came_in = status is not None and status.state == "in" and not was_in
        if track.set_traffic(status, now):
            run.picture.changed(name)
            if came_in and track.record.traffic == "in" and track.health == "yes":
                run.progressed(now)


# One handler a kind


def _on_launch(run: Run, track: Track, completion: Completion, now: float) -> None:
    minion_id = track.record.minion_id
    track.on_launch_returned(now)
    run.timers.list_soon(now, len(run.picture))
    track.retry_at = now + RETRY
    if isinstance(completion.error, NoAnswer):  # it may have come: the next list tells
        run.transaction.note("in doubt", f"it may have been launched: {completion.error}", minion_id)
        return
    if completion.error is not None:
        track.fault = track.fault or f"it could not be launched: {completion.error}"
        return
    intent = track.record.intent if track.record.doomed else "launched"
    track.record = replace(track.record, ref=completion.value, intent=intent)
    track.probe_at = max(track.probe_at, now)
    name = "" if completion.value == minion_id else f" as {completion.value}"
    run.transaction.note("launched", f"it boots{name}", minion_id)


def _on_destroy(run: Run, track: Track, completion: Completion, now: float) -> None:
    minion_id = track.record.minion_id
    run.timers.list_soon(now, len(run.picture))
    track.retry_at = now + RETRY
    if isinstance(completion.error, NoAnswer):
        run.transaction.note("in doubt", f"it may have been destroyed: {completion.error}", minion_id)
    elif completion.error is not None:
        run.transaction.note("stays", f"it could not be destroyed: {completion.error}", minion_id)
    elif completion.value:
        track.record = replace(track.record, intent="doomed")
        run.transaction.note("console", completion.value, minion_id)


def _on_forget(run: Run, track: Track, completion: Completion, now: float) -> None:
    minion_id = track.record.minion_id
    if completion.error is not None:
        track.absent_since = None  # asked again after the next list
        run.transaction.note("stays", f"it could not be forgotten: {completion.error}", minion_id)
        return
    run.picture.remove(minion_id, now)
    run.progressed(now)
    run.transaction.note("gone", "absent, keys deleted", minion_id)


def _on_probe(run: Run, track: Track, completion: Completion, now: float) -> None:
    minion_id, before = track.record.minion_id, track.health
    track.on_probe(completion.value, completion.task.asked, now, _patience(run, track))
    if track.record.doomed:
        return
    if track.health == "yes" and track.record.ready_since is None:
        traffic: TrafficIntent = "out" if run.world.routed else "in"
        track.record = replace(track.record, ready_since=now, healthy_since=now, traffic=traffic)
        track.since, track.probe_at = now, now + max(PROBE_SERVING, _patience(run, track))
        run.progressed(now)
        seconds = now - track.record.born
        after = f" after {seconds:.1f} s" if seconds >= 0 else ""  # the clock may have been set back
        run.transaction.note("ready", f"it runs the planned image and is healthy{after}", minion_id)
    elif (before, track.health) == ("yes", "no"):
        run.transaction.note("unhealthy", track.note, minion_id)


def _on_verify(run: Run, track: Track, completion: Completion, now: float) -> None:
    track.verified = now
    if completion.error is not None:
        track.on_key_denied(now)
    elif completion.value and not track.contested:
        track.contested = True
        why = "a minion with another key claims its id"
        run.transaction.note("alarm", why, track.record.minion_id)
        if track.record.ready_since is None:
            track.fault = why


def _on_attach(run: Run, track: Track, completion: Completion, now: float) -> None:
    _on_route(run, track, "its traffic cannot be turned on", completion, now)


def _on_drain(run: Run, track: Track, completion: Completion, now: float) -> None:
    _on_route(run, track, "its traffic is not turned off", completion, now)


def _on_route(run: Run, track: Track, what: str, completion: Completion, now: float) -> None:
    track.route_at = now + RETRY
    run.timers.traffic_at = now
    complaint = "" if completion.error is None else f"{what}: {completion.error}"
    if complaint and complaint != track.complaint:
        run.transaction.note("stays", complaint, track.record.minion_id)
    track.complaint = complaint


def _patience(run: Run, track: Track) -> float:
    return patience(track.record.generation == run.rollout.target, len(run.picture))


class Handlers(TypedDict):
    """A handler for each kind of call about one machine: mypy finds a kind without one."""

    launch: Handler
    attach: Handler
    drain: Handler
    destroy: Handler
    forget: Handler
    probe: Handler
    verify: Handler


HANDLERS: Handlers = {
    "launch": _on_launch,
    "attach": _on_attach,
    "drain": _on_drain,
    "destroy": _on_destroy,
    "forget": _on_forget,
    "probe": _on_probe,
    "verify": _on_verify,
}
