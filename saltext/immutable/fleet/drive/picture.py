"""The picture of a fleet: each machine as the store has it and as this run has observed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from saltext.immutable.fleet.books.ledger import Record
from saltext.immutable.fleet.decide.state import Machine
from saltext.immutable.fleet.drive.track import NEVER, Track
from saltext.immutable.providers import Instance


class Picture:
    """What is known of the machines of one fleet. What the plan sees of a machine is made again only after a change.

    ``changed`` is called with the id of each machine of which something changed. ``starts_within``: seconds for which a
    machine is waited for that has stopped because its host has booted. Times are seconds since the epoch.
    """

    def __init__(
        self,
        records: Mapping[str, Record],
        routed: bool,
        now: float,
        changed: Callable[[str], None],
        starts_within: float,
    ) -> None:
        self.tracks = {key: Track(record, since=now, probe_at=now) for key, record in records.items()}
        for track in self.tracks.values():
            track.reset(now)  # times in the store may lie in the future, where a clock was set back
        self.has_changed = True
        """Whether anything that the plan sees has changed since this was last set to False."""
        self._routed, self._on_change, self._starts_within = routed, changed, starts_within
        self._machines: dict[str, Machine] = {}
        self._stale = dict.fromkeys(self.tracks)
        """Ids of the machines that changed since `machines` was called, in the order of their changes."""
        self._listed_at = -NEVER
        """When the newest list was asked for."""
        self._removed: dict[str, float] = {}
        """Ids of the machines that are gone for good, and since when: an older list may still show them."""

    def __len__(self) -> int:
        return len(self.tracks)

    def record(self, minion_id: str) -> Record | None:
        """Return the record of a machine, or None if the fleet has none of this id."""
        return self.tracks[minion_id].record if minion_id in self.tracks else None

    def machine(self, minion_id: str) -> Machine:
        """Return a machine as `machines` returned it last."""
        return self._machines[minion_id]

    def machines(self) -> list[Machine]:
        """Return all machines, as the plan sees them."""
        for name in self._stale:
            machine = self.tracks[name].machine(self._routed) if name in self.tracks else None
            if machine == self._machines.get(name):
                continue
            self.has_changed = True
            if machine is not None:
                self._machines[name] = machine
            else:
                del self._machines[name]
        self._stale.clear()
        return list(self._machines.values())

    @property
    def any_doomed(self) -> bool:
        """Tell whether a machine is doomed, as `machines` returned them last."""
        return any(machine.phase == "doomed" for machine in self._machines.values())

    def changed(self, minion_id: str) -> None:
        """Note that something about a machine changed, for the plan, the store and the timers."""
        self._stale[minion_id] = None
        self._on_change(minion_id)

    def changed_by_time(self, minion_id: str) -> None:
        """Note that something about a machine changed for the plan alone: there is nothing to write or to do."""
        self._stale[minion_id] = None

    def add(self, track: Track) -> None:
        """Add a machine."""
        self.tracks[track.record.minion_id] = track
        self.changed(track.record.minion_id)

    def remove(self, minion_id: str, now: float) -> None:
        """Remove a machine that is gone for good."""
        del self.tracks[minion_id]
        self._removed[minion_id] = now

    def reset(self, now: float) -> None:
        """Reset what was observed: after a jump of the clock its age is unknown."""
        self._listed_at = -NEVER
        for minion_id, track in self.tracks.items():
            track.reset(now)
            track.timer = NEVER
            self.changed(minion_id)

    def unknown_instances(self, instances: Iterable[Instance], asked: float) -> list[Instance]:
        """Return the machines in a list that are not in the store."""
        if asked < self._listed_at:
            return []
        removed = self._removed
        return [
            one
            for one in instances
            if one.minion_id not in self.tracks and asked > removed.get(one.minion_id, -1.0)
        ]

    def update_from_list(self, instances: Iterable[Instance], asked: float, now: float, settles: float) -> bool:
        """Update all machines from a complete list of the provider, which was asked for at ``asked``.

        ``settles``: seconds for which a machine must be absent from lists to be gone. Return whether the list is the
        first to show that a host has booted, or has started a machine again.
        """
        if asked < self._listed_at:
            return False  # a newer list came first, and may show machines that came meanwhile
        self._listed_at, booted = asked, False
        there = {instance.minion_id: instance for instance in instances}
        for minion_id, track in self.tracks.items():
            if minion_id in there:
                booted = booted or track.host_boots(there[minion_id])
                is_settled = asked >= track.launch_returned_at
                is_new = track.on_listed(there[minion_id], is_settled, now, self._starts_within)
            else:
                is_new = track.on_missing(asked, now, settles, self._starts_within)
            if is_new:
                self.changed(minion_id)
        return booted

    def set_marks(self, taints: Mapping[str, str], protections: Mapping[str, str]) -> None:
        """Set which machines are tainted or protected, and why."""
        for minion_id, track in self.tracks.items():
            marks = taints.get(minion_id), protections.get(minion_id)
            if marks != (track.taint, track.protect):
                track.taint, track.protect = marks
                self._stale[minion_id] = None
