"""When a driver has something to do though nothing comes back. Times are seconds since the epoch."""

from __future__ import annotations

import heapq

from saltext.immutable.fleet.drive.track import NEVER, Track

LISTED = 2_000
"""Machines that are listed a second, at most: a large fleet is listed less often."""


class Timers:
    """What is due when: the list, the traffic, the books, and each machine.

    ``beat``: seconds after which the books are read, at the latest, for what others wrote into them.
    """

    def __init__(self, now: float, beat: float, routed: bool) -> None:
        self._beat, self._routed = beat, routed
        self.list_at, self.last_list = now, -NEVER
        self.traffic_at = now if routed else NEVER
        self.news_at = now + beat
        self.budget_at = now
        """Others hold what the budgets allow: before this they are not asked again."""
        self._of_machines: list[tuple[float, str]] = []
        self._due: set[str] = set()
        self._waiting: dict[str, None] = {}
        """Machines that only lack a free call, the first ones first."""

    def restart(self, now: float) -> None:
        """Let everything be due: the clock jumped."""
        self.list_at = self.budget_at = now
        self.traffic_at = now if self._routed else NEVER
        self._of_machines.clear()

    def list_soon(self, now: float, machines: int) -> None:
        """Ask what the provider lists: something has changed. The list of a large fleet takes its time."""
        self.list_at = min(self.list_at, max(now, self.last_list + machines / LISTED))

    def is_time_for_news(self, now: float) -> bool:
        """Tell whether the books are to be read, with each list or where one does not come back; then set the next."""
        if now < min(self.list_at, self.news_at):
            return False
        self.news_at = now + self._beat
        return True

    def is_time_to_list(self, now: float) -> bool:
        """Tell whether the provider is to be asked; then wait for its answer."""
        if now < self.list_at:
            return False
        self.list_at, self.last_list = NEVER, now
        return True

    def is_time_for_traffic(self, now: float) -> bool:
        """Tell whether the traffic is to be asked; then wait for its answer."""
        if now < self.traffic_at:
            return False
        self.traffic_at = NEVER
        return True

    # Machines

    def due(self, minion_id: str) -> None:
        """Let a machine be looked at next."""
        self._due.add(minion_id)

    def set(self, track: Track, at: float) -> None:
        """Look at a machine at ``at``, if nothing makes it due earlier."""
        if at < track.timer:
            track.timer = at
            heapq.heappush(self._of_machines, (at, track.record.minion_id))

    def take_due(self, tracks: dict[str, Track], now: float) -> list[Track]:
        """Return the machines that are due, by id; each is due no more."""
        while self._of_machines and self._of_machines[0][0] <= now:
            _, name = heapq.heappop(self._of_machines)
            if name in tracks:
                tracks[name].timer = NEVER
                self._due.add(name)
        due, self._due = sorted(self._due & tracks.keys()), set()
        for name in due:
            self._waiting.pop(name, None)
        return [tracks[name] for name in due]

    def wait_for_a_call(self, minion_id: str) -> None:
        """Let a machine have the next call that is free, after those that wait already."""
        self._waiting[minion_id] = None

    def next_waiting(self, tracks: dict[str, Track]) -> Track | None:
        """Return the machine that has waited longest for a free call, and let it wait no more; None: none waits."""
        while self._waiting:
            name = next(iter(self._waiting))
            del self._waiting[name]
            if name in tracks:
                return tracks[name]
        return None

    def next(self, wake: float | None, acted_at: float, tracks: dict[str, Track]) -> float:
        """Return when there is something to do even if nothing comes back."""
        times = [self.list_at, self.traffic_at, acted_at + self._beat, NEVER if wake is None else wake]
        if self._of_machines:
            times.append(self._of_machines[0][0])
        if self._due - tracks.keys():
            times.append(acted_at)
        return min((at for at in times if at > acted_at), default=acted_at + self._beat)
