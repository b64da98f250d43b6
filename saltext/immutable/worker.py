"""Call a function of a builder or host: in this process where this process is root, else as a Salt job on a minion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.minions import Jobs
from saltext.immutable.spec.model import Settings

JOB_LOST_AFTER = 30
"""The default of ``lost_after``. A host that bakes uses all of its cores."""

Functions = Mapping[str, Callable[..., Any]]
"""The functions of an execution module by name. Each takes the `Host` as its first argument."""


class Worker:
    """Calls functions of one execution module on the host that bakes or runs machines.

    ``module`` is the name of that execution module (``image``), for Salt jobs. ``local`` holds the same functions, for
    calls in this process. ``lost_after``: seconds after which a job without a sign of life counts as lost.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        settings: Settings,
        module: str,
        local: Functions,
        lost_after: int = JOB_LOST_AFTER,
    ) -> None:
        self._settings, self._module, self._local = settings, module, local
        self._jobs = Jobs(opts, lost_after)
        if settings.builder is None and os.geteuid() != 0:
            raise CommandExecutionError(
                "immutable:builder is not set in the master config, and this master does not run as root, so it cannot "
                "bake images and run machines itself; set it to the minion id of the host that does"
            )

    def __call__(self, name: str, **kwargs: Any) -> Any:
        """Call one function and return its answer; ``kwargs`` and answer are data that JSON can hold.

        Raises CommandExecutionError where the function does, or where the minion does not answer.
        """
        if self._settings.builder is None:
            host = Host(self._settings.root)
            with host.explain_full_disk():
                return self._local[name](host, **kwargs)
        return self._jobs.run(self._settings.builder, f"{self._module}.{name}", kwargs=kwargs)
