"""What the driver has seen of one machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.decide.checks import PROBE_WITHIN
from saltext.immutable.fleet.decide.state import Health, Machine, Phase
from saltext.immutable.fleet.drive.world import Probe
from saltext.immutable.providers import Instance
from saltext.immutable.traffic import Standing

NEVER = float("inf")
RETRY = 2.0
"""Seconds before a call about a machine is made again: a launch, a destroy, an attach or a drain."""

# Seconds between two probes of a machine.
SERVING = 5.0
REPLACED = 10.0
"""One that is healthy and that the rollout is to replace: nothing waits for it to stay so."""
UNWELL = 2.0
STARTED = 0.5
"""Its minion is up; services may need another moment."""
SILENT = 5.0
"""Its start event has not come. A probe of it may take long to time out."""
OVERDUE = PROBE_WITHIN + 5.0
"""Seconds after which a probe that is under way makes the health unknown."""
VERIFY = 2.0
"""Seconds between two questions whether an id is contested: any minion can raise that alarm on the bus."""
CONFIRMED = 2.0
"""Seconds for which lists have to say that a machine which was ready does not run."""
OUT = Standing("out")


def phase(record: Record) -> Phase:
    """Return what a machine is to the plan, as far as the books tell."""
    if record.doomed:
        return "doomed"
    if record.ready_since is None:
        return "booting"
    if record.traffic == "in":
        return "serving"
    return "draining" if record.traffic == "drain" and record.kept_until is None else "standby"


@dataclass(slots=True)
class Track:
    """One machine: the record of what we want of it, and what was observed in this run."""

    record: Record
    since: float
    """Since when ``health`` is what it is; before it is ready: since when we wait for it."""
    probe_at: float
    instance: Instance | None = None
    touched: float = 0.0
    """When its launch came back: a list that was asked for earlier says nothing of it."""
    absent_since: float | None = None
    lost_since: float | None = None
    """Since when lists say that it does not run, or is gone."""
    listed: bool = False
    """A list that was asked for late enough has been seen, with it or without it."""
    health: Health = "unknown"
    note: str = ""
    fault: str | None = None
    taint: str | None = None
    """Why it is no longer what its image says, as the books have it."""
    protect: str | None = None
    """Why it must not be taken away, as the books have it."""
    standing: Standing | None = None
    """How the traffic adapter sees it; None: unknown."""
    started: bool = False
    proven: bool = False
    """Its minion named the right digest in this run."""
    asked: float = 0.0
    """When the newest probe was submitted."""
    verify_at: float = NEVER
    """When to ask Salt whether its id is contested."""
    verified: float = 0.0
    """When that was last asked."""
    contested: bool = False
    retry_at: float = 0.0
    """Before this it is not launched or destroyed again."""
    route_at: float = 0.0
    """Before this the traffic adapter is not called again."""
    complaint: str = ""
    """The error of the last such call; the journal gets each once."""
    timer: float = NEVER
    """When the driver looks at it at the latest."""
    busy: set[str] = field(default_factory=set)

    def machine(self, routed: bool) -> Machine:
        """Return what the plan needs to know. ``routed``: the fleet has a traffic adapter."""
        record, standing = self.record, self.standing
        attached: bool | None = True
        if routed:
            attached = None if standing is None else standing.state == "in" and standing.up is not False
        sessions = None if standing is None else standing.sessions if standing.state != "in" else None
        if not routed:
            sessions = 0
        return Machine(
            record.minion_id,
            record.generation,
            phase(record),
            record.born,
            self.since,
            self.health if self.lost_since is None or self.health == "no" else "unknown",
            self.note if self.lost_since is None else "the provider says that it does not run",
            self.fault,
            self.taint,
            record.ready_since,
            record.healthy_since,
            attached,
            record.drain_since,
            sessions,
            record.kept_until,
            self.protect,
        )

    def forget(self, now: float) -> None:
        """Take in that the clock jumped: the machine is probed anew, and waited for anew."""
        self.since = self.probe_at = self.asked = now
        if self.health == "yes":
            self.health, self.note = "unknown", "nobody has looked at it since the clock jumped"
        self.standing = None
        self.retry_at = self.route_at = 0.0
        self.touched = min(self.touched, now)
        self.absent_since = None if self.absent_since is None else now
        self.busy.discard("probe")
        record = self.record
        self.record = replace(
            record,
            healthy_since=None if record.healthy_since is None else min(record.healthy_since, now),
            drain_since=None if record.drain_since is None else min(record.drain_since, now),
        )

    def see(self, instance: Instance, settled: bool, now: float) -> bool:
        """Take in that the provider lists it; tell whether that is news."""
        known = self.instance == instance and self.absent_since is None and self.listed
        if known and self.record.ref is not None and (instance.running or self.fault is not None):
            return False
        self.absent_since = None
        self.listed = self.listed or settled
        if self.record.ref is None and not self.record.doomed and not instance.running:
            return True  # half made by somebody who was killed: its launch, which may be repeated, mends that
        self.instance = instance
        if self.record.ref is None:
            intent = self.record.intent if self.record.doomed else "launched"
            self.record = replace(self.record, intent=intent, ref=instance.ref)
        self.lost_since = None if instance.running else self.lost_since or now
        if self._is_lost(now):
            self.fault = "it has stopped"
        return True

    def _is_lost(self, now: float) -> bool:
        """Tell whether lists say for long enough that it does not run: one list may be wrong, and take a fleet."""
        if self.lost_since is None or self.record.doomed or self.fault is not None:
            return False
        return self.record.ready_since is None or now >= self.lost_since + CONFIRMED

    def miss(self, asked: float, now: float, settles: float) -> bool:
        """Take in that a complete list, asked for at ``asked``, is without it; tell whether that is news."""
        if asked < self.touched:
            return False
        self.listed = True
        if self.record.ref is not None:
            self.lost_since = self.lost_since or now
        self.absent_since = now if self.absent_since is None else self.absent_since
        if self.absent_for(now, settles):
            self.instance = None
            if self.record.ref is not None and self._is_lost(now):
                self.fault = "it is gone"
        return True

    def absent_for(self, now: float, settles: float) -> bool:
        """Tell whether it has been absent for long enough to be gone."""
        return self.absent_since is not None and now >= self.absent_since + settles

    def touch(self, now: float) -> None:
        """Take in that its launch came back: what lists said before does not count."""
        self.touched = now
        self.absent_since = None
        self.listed = False

    def stand(self, standing: Standing | None, now: float) -> bool:
        """Take in how the traffic adapter sees it; tell whether that is new."""
        news = standing != self.standing
        self.standing = standing
        drained = standing is not None and standing.state != "in" and self.record.traffic == "drain"
        if drained and self.record.drain_since is None:
            self.record = replace(self.record, drain_since=now)
        return news

    @property
    def to_attach(self) -> bool:
        """Tell whether it has to be attached."""
        record = self.record
        wanted = record.traffic == "in" and record.ready_since is not None and not record.doomed
        return wanted and self.standing is not None and self.standing.state != "in"

    @property
    def to_drain(self) -> bool:
        """Tell whether it has to be drained."""
        return self.record.traffic != "in" and self.standing is not None and self.standing.state == "in"

    def suspect(self, now: float) -> None:
        """Take in an event which says that a second minion tried to enrol with its id."""
        if not self.contested:
            self.verify_at = min(self.verify_at, max(now, self.verified + VERIFY))

    def overdue_at(self) -> float:
        """Return when the probe that is under way has taken so long that the health is unknown."""
        return self.asked + OVERDUE if "probe" in self.busy and self.health != "unknown" else NEVER

    def doubt(self, now: float) -> bool:
        """Take in the time: a probe that does not come back must not leave a machine healthy."""
        if now < self.overdue_at():
            return False
        self.health, self.since = "unknown", now
        self.note = f"a look at it takes longer than {OVERDUE:g} s"
        return True

    def answer(self, probe: Probe, asked: float, now: float, patience: float) -> None:
        """Take in what a probe learned; a newer probe outdates an older one that did not find the machine healthy."""
        if asked < self.asked and probe.health != "yes":
            return
        self.proven = self.proven or probe.health == "yes"
        if probe.wrong:
            self.fault = probe.note
        if probe.health != self.health:
            self.health = probe.health
            self.since = now if self.record.ready_since is not None else self.since
        self.note = probe.note
        self._remember(now)
        self.probe_at = now + (max(patience, self._patience()) if self.health == "yes" else self._patience())

    def _remember(self, now: float) -> None:
        """Write down since when no probe found it unhealthy: the next driver need not wait anew."""
        if self.health == "yes" and self.record.healthy_since is None:
            self.record = replace(self.record, healthy_since=now)
        elif self.health == "no" and self.record.healthy_since is not None:
            self.record = replace(self.record, healthy_since=None)

    def _patience(self) -> float:
        if self.record.ready_since is None:
            return STARTED if self.started else SILENT
        return SERVING if self.health == "yes" else UNWELL
