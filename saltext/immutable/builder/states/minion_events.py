"""Do not wait for a minion that does not run during a bake."""

from __future__ import annotations

import functools
import glob
import os
from typing import Any


def skip_absent_minion(bus: Any) -> None:
    """Make ``bus`` (Salt's class ``SaltEvent``) fail at once to connect to a minion that has no socket.

    After each package state salt-call sends the minion an event to refresh its modules, and waits one second for it.
    """
    connect = bus.connect_pull

    @functools.wraps(connect)
    def connect_pull(self: Any, timeout: float | None = 1) -> Any:
        local = self.node == "minion" and self.opts.get("ipc_mode") == "ipc"
        if local and not glob.glob(_sockets(self.opts["sock_dir"])):
            return False
        return connect(self, timeout=timeout)

    bus.connect_pull = connect_pull


def _sockets(folder: str) -> str:
    return os.path.join(glob.escape(folder), "minion_event_*_pull.ipc")
