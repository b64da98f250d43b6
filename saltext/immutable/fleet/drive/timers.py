"""When the driver has to act even if no call returns. Times are seconds since the epoch."""

from __future__ import annotations

import heapq

from saltext.immutable.fleet.drive.track import NEVER, Track

LISTED = 2_000
"""How many machines are listed a second, at most: a large fleet is listed less often."""


class Timers:
    """When the list, the traffic, the store and each machine are due.

    ``beat``: the longest time in seconds between two reads of the store, for what other processes wrote.
    """

    def __init__(self, now: float, beat: float, routed: bool) -> None:
        self._beat, self._routed = beat, routed
        self.list_at, self.last_list = now, -NEVER
        self.traffic_at = now if routed else NEVER
        self.books_at = now + beat
        self.budget_at = now
        """Before this the budgets are not asked again: other fleets hold all they allow."""
        self._of_machines: list[tuple[float, str]] = []
        self._due: set[str] = set()
        self._waiting: dict[str, None] = {}
        """Ids of the machines that wait until fewer calls are running, in their order."""

    def restart(self, now: float) -> None:
        """Make everything due: the clock jumped."""
        self.list_at = self.budget_at = now
        self.traffic_at = now if self._routed else NEVER
        self._of_machines.clear()

    def list_soon(self, now: float, machines: int) -> None:
        """Make the list due soon, because something changed; a large fleet is listed less often."""
        self.list_at = min(self.list_at, max(now, self.last_list + machines / LISTED))

    def is_time_to_read_books(self, now: float) -> bool:
        """Tell whether the store is to be read: with each list, or after ``beat``. Then set the next time."""
        if now < min(self.list_at, self.books_at):
            return False
        self.books_at = now + self._beat
        return True

    def is_time_to_list(self, now: float) -> bool:
        """Tell whether to ask the provider for its list; if so, do not ask again until it has answered."""
        if now < self.list_at:
            return False
        self.list_at, self.last_list = NEVER, now
        return True

    def is_time_for_traffic(self, now: float) -> bool:
        """Tell whether to ask the traffic adapter; if so, do not ask again until it has answered."""
        if now < self.traffic_at:
            return False
        self.traffic_at = NEVER
        return True

    # Machines

    def due(self, minion_id: str) -> None:
        """Make a machine due."""
        self._due.add(minion_id)

    def set(self, track: Track, at: float) -> None:
        """Make a machine due at ``at``, unless it is due earlier."""
        if at < track.timer:
            track.timer = at
            heapq.heappush(self._of_machines, (at, track.record.minion_id))

    def take_due(self, tracks: dict[str, Track], now: float) -> list[Track]:
        """Return the machines that are due, sorted by id, and make them due no more."""
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
        """Put a machine at the end of the queue of those that wait until fewer calls are running."""
        self._waiting[minion_id] = None

    def next_waiting(self, tracks: dict[str, Track]) -> Track | None:
        """Take the first machine from the queue of `wait_for_a_call`; None if the queue is empty."""
        while self._waiting:
            name = next(iter(self._waiting))
            del self._waiting[name]
            if name in tracks:
                return tracks[name]
        return None

    def next(self, wake: float | None, acted_at: float, tracks: dict[str, Track]) -> float:
        """Return when the driver has to act even if no call returns."""
        times = [self.list_at, self.traffic_at, acted_at + self._beat, NEVER if wake is None else wake]
        if self._of_machines:
            times.append(self._of_machines[0][0])
        if self._due - tracks.keys():
            times.append(acted_at)
        return min((at for at in times if at > acted_at), default=acted_at + self._beat)
