"""A bake has no minion that listens: what is said to it need not wait until that is known."""

from __future__ import annotations

import functools
import glob
import os
from typing import Any


def wait_for_no_minion(bus: Any) -> None:
    """Let ``bus`` (Salt's ``SaltEvent``) give up at once where no minion has opened one.

    Each state of a package tells the minion to look for new modules, and waited a second for the one that is not there.
    """
    connect = bus.connect_pull

    @functools.wraps(connect)
    def connect_pull(self: Any, timeout: float | None = 1) -> Any:
        local = self.node == "minion" and self.opts.get("ipc_mode") == "ipc"
        if local and not glob.glob(_pulled(self.opts["sock_dir"])):
            return False
        return connect(self, timeout=timeout)

    bus.connect_pull = connect_pull


def _pulled(folder: str) -> str:
    return os.path.join(glob.escape(folder), "minion_event_*_pull.ipc")
