"""Who sends visitors in a simulated world: servers that are in, draining or out, with sessions that end some time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from salt.exceptions import CommandExecutionError

from saltext.immutable.traffic import TrafficStatus

if TYPE_CHECKING:
    from .simulated import Simulated


@dataclass
class Server:
    state: Literal["in", "draining"] = "in"
    sessions: int = 3


class Visitors:
    """An adapter of traffic."""

    def __init__(self, world: Simulated) -> None:
        self._world = world
        self.servers: dict[str, Server] = {}
        self.slandered: set[str] = set()
        self.checks = True
        """They check the machines themselves."""
        self.longest = 8.0
        """Seconds that a visitor may stay."""

    def status(self) -> Mapping[str, TrafficStatus]:
        self._perhaps_fail()
        return {name: TrafficStatus(one.state, self._up(name), one.sessions) for name, one in self.servers.items()}

    def _up(self, name: str) -> bool | None:
        if name in self.slandered:
            return False
        return self._world.is_well(name, lately=2.0) if self.checks else None

    def attach(self, minion_id: str, address: str) -> None:
        assert address, "visitors are sent somewhere"
        self._perhaps_fail()
        if minion_id in self._world.machines or minion_id in self.servers:
            self.servers[minion_id] = Server()

    def drain(self, minion_id: str) -> None:
        self._perhaps_fail()
        server = self.servers.get(minion_id)
        if server is not None and server.state == "in":
            self._world.taken(minion_id, "drain")
            server.state = "draining"
            for _ in range(server.sessions):
                self._world.later(self._world.random.uniform(0, self.longest), lambda: self._leave(server))

    @staticmethod
    def _leave(server: Server) -> None:
        if server.state == "draining":
            server.sessions = max(0, server.sessions - 1)

    def remove(self, minion_id: str) -> None:
        self._perhaps_fail()
        if minion_id in self.servers:
            self._world.taken(minion_id, "remove")
            del self.servers[minion_id]

    def slander(self, name: str, seconds: float) -> None:
        """Take a machine for down for a while."""
        self.slandered.add(name)
        self._world.later(seconds, lambda: self.slandered.discard(name))

    def reload(self) -> None:
        """Forget every machine."""
        self.servers.clear()

    def _perhaps_fail(self) -> None:
        if self._world.happens(self._world.faults.traffic_fails):
            raise CommandExecutionError("the socket cannot be reached")
