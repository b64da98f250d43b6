"""Do not wait for a minion that does not run during a bake."""

from __future__ import annotations

import functools
import glob
import os
from typing import Any


def skip_absent_minion(bus: Any) -> None:
    """Make ``bus`` (Salt's class ``SaltEvent``) fail at once to connect to a minion that has no socket.

    After each package state salt-call sends the minion an event to refresh its modules, and waits one second for it.
    What is sent to nobody counts as sent: a state that calls saltutil.refresh_pillar succeeds as where a minion runs.
    """
    connect, fire = bus.connect_pull, bus.fire_event

    def absent(self: Any) -> bool:
        local = self.node == "minion" and self.opts.get("ipc_mode") == "ipc"
        return local and not glob.glob(_sockets(self.opts["sock_dir"]))

    @functools.wraps(connect)
    def connect_pull(self: Any, timeout: float | None = 1) -> Any:
        return False if absent(self) else connect(self, timeout=timeout)

    @functools.wraps(fire)
    def fire_event(self: Any, data: Any, tag: str, timeout: int = 1000) -> Any:
        return fire(self, data, tag, timeout) or absent(self)

    bus.connect_pull, bus.fire_event = connect_pull, fire_event


def _sockets(folder: str) -> str:
    return os.path.join(glob.escape(folder), "minion_event_*_pull.ipc")
