"""The executor ``direct_call``: as in Salt's core, but a sealed machine refuses what would change it.

Where this pack is installed it takes the place of core's executor, for jobs and for ``salt-call``. On a host without a
seal it costs one ``lstat`` and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"
WITHOUT_GUARD = ("test.ping", "immutable.status", "immutable.answer")
"""Functions that run even if this pack itself is damaged."""

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

    In a job of several functions the reason is returned and the job's retcode set: Salt ignores an exception there
    (exit code 0).
    """
    if os.path.lexists(SEAL_PATH):
        reason = refusal(opts, data, func, args, kwargs)
        if reason:
            return refuse(reason, data, lambda: __context__)
    return func(*args, **kwargs)


def refusal(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> str | None:
    """Return why a sealed machine refuses a call, or None.

    The loader's ``func`` has its own name; ``data["fun"]`` is a list in a job of several functions.
    """
    fun = str(getattr(func, "name", data.get("fun")))
    try:
        from saltext.immutable.guard import gate

        return gate.refusal(opts, data, fun, args, kwargs)
    except Exception as err:  # any error refuses the call
        if fun in WITHOUT_GUARD:
            return None
        return f"sealed: the guard of this machine is damaged ({type(err).__name__}: {err}); replace the machine"


def refuse(reason: str, data: Mapping[str, Any], context: Callable[[], dict[str, Any]]) -> str:
    """Raise ``CommandExecutionError`` in a job of one function; in a job of several, set retcode 1 and return it."""
    from salt.exceptions import CommandExecutionError

    if not isinstance(data.get("fun"), list):
        raise CommandExecutionError(reason)
    context()["retcode"] = 1
    return reason
