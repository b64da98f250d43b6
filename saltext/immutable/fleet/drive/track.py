"""What the driver knows of one machine: its record, and what lists, probes and the traffic adapter said of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.decide.state import Health, Machine, Phase
from saltext.immutable.fleet.drive import probing
from saltext.immutable.fleet.drive.world import Probe
from saltext.immutable.providers import Instance
from saltext.immutable.traffic import TrafficStatus

NEVER = float("inf")
RETRY = 2.0
"""Seconds before a launch, destroy, attach or drain of one machine is repeated."""

VERIFY_EVERY = 2.0
"""Seconds between two checks whether an id is contested: any minion can send that event."""
CONFIRMED_AFTER = 2.0
"""Seconds for which lists must say that a machine which was ready does not run."""
OUT = TrafficStatus("out")


def phase(record: Record) -> Phase:
    """Return the phase of a machine, by its record."""
    if record.doomed:
        return "doomed"
    if record.ready_since is None:
        return "booting"
    if record.traffic == "in":
        return "serving"
    return "draining" if record.traffic == "drain" and record.kept_until is None else "standby"


@dataclass(slots=True)
class Track:
    """One machine: the record of what is wanted of it, and what this run has observed."""

    record: Record
    since: float
    """Since when ``health`` has its value; before the machine is ready: since when the driver waits for it."""
    probe_at: float
    instance: Instance | None = None
    launch_returned_at: float = 0.0
    """When its launch call returned: a list that was asked for earlier says nothing about it."""
    absent_since: float | None = None
    lost_since: float | None = None
    """Since when lists say that it does not run, or do not show it; None: they show that it runs."""
    listed: bool = False
    """Whether a list has come that was asked for after its launch, with it or without it."""
    health: Health = "unknown"
    note: str = ""
    fault: str | None = None
    taint: str | None = None
    """Why it is tainted, as the store says."""
    protect: str | None = None
    """Why it is protected, as the store says."""
    traffic_status: TrafficStatus | None = None
    """Its state in the traffic adapter; None: unknown."""
    started: bool = False
    proven: bool = False
    """Its minion reported the right digest in this run."""
    asked: float = 0.0
    """When the newest probe was submitted."""
    verify_at: float = NEVER
    """When to ask Salt whether its id is contested: a minion with another key tried to enrol with it."""
    verified: float = 0.0
    """When that was last asked."""
    outdated: bool = False
    """The last probe said so: see `Machine.outdated`."""
    late: str | None = None
    """Why it is replaced though it runs: its host started it again, and it was not healthy within ``ready_within``."""
    contested: bool = False
    forged: bool = False
    """Whether a forged answer under its id was reported in this run."""
    retry_at: float = 0.0
    """Before this it is not launched or destroyed again."""
    route_at: float = 0.0
    """Before this the traffic adapter is not called again."""
    complaint: str = ""
    """The error of the last such call. An error that stays the same is written to the journal once."""
    timer: float = NEVER
    """When `Timers` makes it due."""
    busy: set[str] = field(default_factory=set)

    def machine(self, routed: bool) -> Machine:
        """Return what the plan needs to know. ``routed``: the fleet has a traffic adapter."""
        record, status = self.record, self.traffic_status
        attached: bool | None = True
        if routed:
            attached = None if status is None else status.state == "in" and status.up is not False
        sessions = None if status is None else status.sessions if status.state != "in" else None
        if not routed:
            sessions = 0
        return Machine(
            record.minion_id,
            record.generation,
            phase(record),
            record.born,
            self.since,
            "no" if self.late else self.health if self.lost_since is None or self.health == "no" else "unknown",
            self.note if self.lost_since is None else "the provider says that it does not run",
            self.fault,
            self.taint or (self.instance.damaged if self.instance else None) or self.late,
            record.ready_since,
            record.healthy_since,
            attached,
            record.drain_since,
            sessions,
            record.kept_until,
            self.protect,
            self.outdated,
            self._of_host,
        )

    @property
    def _of_host(self) -> bool:
        """Tell whether its host has booted since it was healthy last."""
        known = self.instance
        return known is not None and (known.ended_with_host or known.restarted not in (0.0, self.record.restarted))

    def reset(self, now: float) -> None:
        """Reset what depends on the clock, which has jumped: the machine is probed again, and its waits start again."""
        self.since = self.probe_at = self.asked = now
        if self.health == "yes":
            self.health, self.note = "unknown", "it was not probed since the clock jumped"
        self.traffic_status = None
        self.late = None
        self.retry_at = self.route_at = 0.0
        self.launch_returned_at = min(self.launch_returned_at, now)
        self.absent_since = None if self.absent_since is None else now
        self.busy.discard("probe")
        record = self.record
        self.record = replace(
            record,
            healthy_since=None if record.healthy_since is None else min(record.healthy_since, now),
            drain_since=None if record.drain_since is None else min(record.drain_since, now),
        )

    def on_listed(self, instance: Instance, settled: bool, now: float, starts_within: float) -> bool:
        """Update it from a list that shows it; return whether anything changed.

        ``settled``: the list was asked for after its launch returned. ``starts_within``: seconds for which it is waited
        for if it has stopped because its host has booted: the host starts it again.
        """
        known = self.instance == instance and self.absent_since is None and self.listed
        if known and self.record.ref is not None and (instance.running or self.fault is not None):
            return self._comes_late(now, starts_within)
        if self.host_boots(instance):
            self.health, self.since, self.probe_at = "unknown", now, min(self.probe_at, now)
        self.absent_since = None
        self.listed = self.listed or settled
        if self.record.ref is None and not self.record.doomed and not instance.running:
            return True  # its launch was killed half-way: the next launch, which may be repeated, completes it
        self.instance = instance
        if self.record.ref is None:
            intent = self.record.intent if self.record.doomed else "launched"
            self.record = replace(self.record, intent=intent, ref=instance.ref)
        self.lost_since = None if instance.running else self.lost_since or now
        if self._is_lost(now, starts_within):
            self.fault = "it has stopped"
        return True

    def host_boots(self, instance: Instance) -> bool:
        """Tell whether a list is the first to show that its host has booted, or has started it again."""
        known = self.instance or instance
        ended = instance.ended_with_host and not known.ended_with_host
        return ended or instance.restarted != known.restarted

    def _comes_late(self, now: float, starts_within: float) -> bool:
        """Note it if a machine that has served did not come back with its host in time; return whether that is new."""
        restarted = self.instance.restarted if self.instance and self._of_host else 0.0
        if self.late or not restarted or self.record.ready_since is None or self.health == "yes":
            return False
        if now < max(restarted + starts_within, self.since + probing.PROBE_OVERDUE):
            return False
        self.late = f"its host started it again, and it was not healthy within {starts_within:g} s"
        return True

    def _is_lost(self, now: float, starts_within: float) -> bool:
        """Tell whether lists have said for long enough that it does not run: one wrong list destroys nothing."""
        if self.lost_since is None or self.record.doomed or self.fault is not None:
            return False
        is_decided = self.taint is not None and self.protect is None  # `fleet.reconcile` has waited for it, for one
        if self.instance is not None and self.instance.ended_with_host and not is_decided:
            return now >= self.lost_since + starts_within
        return self.record.ready_since is None or now >= self.lost_since + CONFIRMED_AFTER

    def on_missing(self, asked: float, now: float, settles: float, starts_within: float) -> bool:
        """Update it from a complete list that does not show it; return whether anything changed.

        ``asked``: when the list was asked for. ``settles``: seconds of absence after which a machine is gone.
        ``starts_within``: as for `on_listed`.
        """
        if asked < self.launch_returned_at:
            return False
        self.listed = True
        if self.record.ref is not None:
            self.lost_since = self.lost_since or now
        self.absent_since = now if self.absent_since is None else self.absent_since
        if self.absent_for(now, settles):
            self.instance = None
            if self.record.ref is not None and self._is_lost(now, starts_within):
                self.fault = "it is gone"
        return True

    def absent_for(self, now: float, settles: float) -> bool:
        """Tell whether it has been absent from lists for ``settles`` seconds, so that it is gone."""
        return self.absent_since is not None and now >= self.absent_since + settles

    def on_launch_returned(self, now: float) -> None:
        """Note that its launch call returned: lists from before do not count."""
        self.launch_returned_at = now
        self.absent_since = None
        self.listed = False

    def set_traffic(self, status: TrafficStatus | None, now: float) -> bool:
        """Update its state in the traffic adapter; return whether it changed."""
        changed = status != self.traffic_status
        self.traffic_status = status
        drained = status is not None and status.state != "in" and self.record.traffic == "drain"
        if drained and self.record.drain_since is None:
            self.record = replace(self.record, drain_since=now)
        return changed

    @property
    def to_attach(self) -> bool:
        """Tell whether it has to be attached."""
        record = self.record
        wanted = record.traffic == "in" and record.ready_since is not None and not record.doomed
        return wanted and self.traffic_status is not None and self.traffic_status.state != "in"

    @property
    def to_drain(self) -> bool:
        """Tell whether it has to be drained."""
        return self.record.traffic != "in" and self.traffic_status is not None and self.traffic_status.state == "in"

    def on_key_denied(self, now: float) -> None:
        """Plan to verify an event which says that a minion with another key tried to enrol with its id."""
        if not self.contested:
            self.verify_at = min(self.verify_at, max(now, self.verified + VERIFY_EVERY))

    def overdue_at(self) -> float:
        """Return when the running probe is overdue, so that the health becomes unknown."""
        return self.asked + probing.PROBE_OVERDUE if "probe" in self.busy and self.health != "unknown" else NEVER

    def expire_probe(self, now: float) -> bool:
        """Set the health to unknown if the running probe is overdue; return whether it was."""
        if now < self.overdue_at():
            return False
        self.health, self.since = "unknown", now
        self.note = f"its probe takes longer than {probing.PROBE_OVERDUE:g} s"
        return True

    def on_probe(self, probe: Probe, asked: float, now: float, patience: float) -> None:
        """Update its health from a probe. An outdated probe counts only if it found the machine healthy."""
        if asked < self.asked and probe.health != "yes":
            return
        self.proven = self.proven or probe.health == "yes"
        self.outdated = probe.outdated
        if probe.wrong:
            self.fault = probe.note
        if probe.health != self.health:
            self.health = probe.health
            self.since = now if self.record.ready_since is not None else self.since
        self.note = probe.note
        self._note_health(now)
        pause = probing.pause(self.record.ready_since is not None, self.started, self.health)
        self.probe_at = now + (max(patience, pause) if self.health == "yes" else pause)

    def _note_health(self, now: float) -> None:
        """Keep in the record since when it is healthy, so that the next driver does not start to count again."""
        if self.health == "yes" and (self.record.healthy_since is None or self._of_host):
            restarted = self.instance.restarted if self.instance else self.record.restarted
            self.record, self.late = replace(self.record, healthy_since=now, restarted=restarted), None
        elif self.health == "no" and self.record.healthy_since is not None:
            self.record = replace(self.record, healthy_since=None)
