"""Where root's work is done: in this process if it may, else as a Salt job on the named minion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.minions import Jobs
from saltext.immutable.spec.model import Settings

PATIENCE = 30
"""Seconds for which a host that bakes with all its cores may be silent before its job counts as lost."""

Doors = Mapping[str, Callable[..., Any]]
"""Function names of an execution module -> the library functions behind them, which take the host first."""


class Worker:
    """Calls functions of one execution module on the host that bakes or runs machines.

    ``module`` is its name for Salt jobs (``image``), ``local`` the same functions for calls in this process.
    """

    def __init__(self, opts: Mapping[str, Any], settings: Settings, module: str, doors: Doors) -> None:
        self._settings, self._module, self._doors = settings, module, doors
        self._jobs = Jobs(opts, PATIENCE)
        if settings.builder is None and os.geteuid() != 0:
            raise CommandExecutionError(
                "images are baked and machines are run by root, and this master runs as another user; set "
                "immutable:builder in the master config to the minion id of the host that shall do it"
            )

    def __call__(self, name: str, **kwargs: Any) -> Any:
        """Call one function with data that JSON can hold."""
        if self._settings.builder is None:
            host = Host(self._settings.root)
            with host.room():
                return self._doors[name](host, **kwargs)
        return self._jobs.run(self._settings.builder, f"{self._module}.{name}", kwargs=kwargs)
