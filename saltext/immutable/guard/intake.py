"""Judge each job as the minion receives it, before Salt acts on its envelope.

Salt writes a file named after the job id before it calls an executor, and calls returners after it, so an executor
comes too late and too early. `install` therefore puts a check around `salt.minion.Minion._handle_decoded_payload`, the
one method through which a minion takes a job: from the master, from its queue on the disk, and its own.
`saltext.immutable.loader_dirs` calls it, which Salt's loader calls in the process that receives jobs, before the first.

Standard library only, until a job comes to a sealed machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"

installed = False
"""Whether the jobs that this process receives from now on are judged."""
judges = False
"""Whether this process, or the one it was forked from, judged a job. The process of a job installs it too, but too late
for its own job."""

Handle = Callable[[Any, Any], Awaitable[Any]]


def install() -> None:
    """Judge the jobs of the minion that this process runs, if it runs one. It does no harm to repeat this."""
    global installed
    minion = sys.modules.get("salt.minion")
    if installed or minion is None:
        return
    minion.Minion._handle_decoded_payload = _judging(minion.Minion._handle_decoded_payload)
    installed = True


def _judging(handle: Handle) -> Handle:
    @wraps(handle)
    def judging(minion: Any, load: Any) -> Awaitable[Any]:
        return handle(minion, judged(load))

    return judging


def judged(load: Any) -> Any:
    """Return a job as the minion may act on it; unchanged on a host without a seal."""
    global judges
    judges = True
    if not os.path.lexists(SEAL_PATH):
        return load
    from salt.utils.jid import gen_jid

    from saltext.immutable.guard import envelope, seal

    try:
        found = seal.read(seal.SEAL_PATH)
        returners = tuple(found.policy["guard"].get("returners", ())) if found else ()
    except seal.SealDamaged:  # the executor refuses the call
        returners = ()
    return envelope.checked(load if isinstance(load, Mapping) else {}, returners, new_id=gen_jid({}))
