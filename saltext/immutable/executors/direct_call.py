"""Core's ``direct_call``, except that a machine which runs an image refuses what would change it.

It shadows core's executor of the same name wherever this pack is installed, for jobs and for ``salt-call``.
On a host without a seal it costs one ``lstat`` and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"


def execute(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call ``func``, or raise ``CommandExecutionError`` with the guard's reason."""
    if os.path.lexists(SEAL_PATH):
        _guard(data, func, args, kwargs)
    return func(*args, **kwargs)


def _guard(
    data: Mapping[str, Any], func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    from salt.exceptions import CommandExecutionError

    # data["fun"] is a list in a job of several functions; what the loader gave us knows its own name.
    reason = _refusal(str(getattr(func, "name", data.get("fun"))), args, kwargs)
    if reason:
        raise CommandExecutionError(reason)


def _refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    from saltext.immutable import guard, seal

    try:
        found, machine = seal.read(seal.SEAL_PATH), seal.machine(seal.MACHINE_PATH)
    except seal.SealDamaged as err:
        return guard.damaged(fun, str(err))
    if found is None:
        return guard.damaged(fun, f"{seal.SEAL_PATH} leads nowhere")
    return guard.refusal(fun, args, kwargs, guard.Sealed(found.name, found.recipe, machine.get("fleet")))
