"""How many machines may be unavailable (max_unavailable), and how many there may be at once (max_surge). Pure."""

from __future__ import annotations

from saltext.immutable.fleet.decide.state import Machine, Rollout
from saltext.immutable.spec.model import Fleet


def floor(fleet: Fleet, rollout: Rollout, size: int) -> int:
    """Return how many healthy serving machines must remain in a rollout to ``size`` machines."""
    return max(0, min(rollout.old_size, size) - fleet.strategy.max_unavailable.down(size))


def places(fleet: Fleet, size: int, switch: bool) -> int:
    """Return how many machines may exist in a rollout to ``size`` machines; kept and doomed ones do not count.

    ``switch``: blue-green, where all new machines stand beside all old ones.
    """
    return size + (size if switch else fleet.strategy.max_surge.up(fleet.size))


class Room:
    """How many machines a plan may still remove."""

    def __init__(self, floor: int, available: int, serving: int, disruptions: int | None) -> None:
        self._floor, self._available, self._serving = floor, available, serving
        self._disruptions = float("inf") if disruptions is None else disruptions

    @property
    def left(self) -> int:
        """Return how many may still be removed, at most; 0 or less: none."""
        return self._serving - self._floor

    def take(self, machine: Machine, available: bool) -> bool:
        """Count a machine as removed if enough remain; return whether it may be removed.

        An unhealthy machine may be removed only while enough machines of any health remain: a health check that is
        wrong must not empty the fleet before one new machine has passed it. So is an outdated machine, whose health
        cannot be known.
        """
        if machine.health == "no":
            allowed = self._serving - 1 >= self._floor
        elif machine.outdated:
            allowed = self._serving - 1 >= self._floor and self._disruptions > 0
        else:
            allowed = self._available - available >= self._floor and self._disruptions > 0
        if allowed:
            self._available -= available
            self._disruptions -= machine.health != "no"
            self._serving -= 1
        return allowed
