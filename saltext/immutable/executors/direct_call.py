"""Core's ``direct_call``, except that a machine which runs an image refuses what would change it.

It shadows core's executor of the same name wherever this pack is installed, for jobs and for ``salt-call``.
On a host without a seal it costs one ``lstat`` and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"

__context__: dict[str, Any]
"""From Salt's loader."""


def execute(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call ``func``, or raise ``CommandExecutionError`` with the guard's reason.

    Salt forgets an exception in a job of several functions (exit code 0), so there the reason is returned
    with a return code. What the loader gave us as ``func`` knows its own name; ``data["fun"]`` is a list then.
    """
    if os.path.lexists(SEAL_PATH):
        reason = _refusal(str(getattr(func, "name", data.get("fun"))), args, kwargs)
        if reason:
            return _refuse(reason, several=isinstance(data.get("fun"), list))
    return func(*args, **kwargs)


def _refuse(reason: str, several: bool) -> str:
    from salt.exceptions import CommandExecutionError

    if not several:
        raise CommandExecutionError(reason)
    __context__["retcode"] = 1
    return reason


def _refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    from saltext.immutable import guard, seal

    try:
        found, machine = seal.read(seal.SEAL_PATH), seal.machine(seal.MACHINE_PATH)
    except seal.SealDamaged as err:
        return guard.damaged(fun, str(err))
    if found is None:  # removed since we looked
        return None
    return guard.refusal(fun, args, kwargs, guard.Sealed(found.name, found.recipe, machine.get("fleet")))
