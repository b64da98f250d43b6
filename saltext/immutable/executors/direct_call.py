"""Core's ``direct_call``, except that a machine which runs an image refuses what would change it.

It shadows core's executor of the same name wherever this pack is installed, for jobs and for ``salt-call``.
On a host without a seal it costs one ``lstat`` and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"
WITHOUT_GUARD = ("test.ping", "immutable.status")
"""What answers also where this pack itself is damaged."""

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
    with a return code.
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

    What the loader gave us as ``func`` knows its own name; ``data["fun"]`` is a list in a job of several.
    """
    fun = str(getattr(func, "name", data.get("fun")))
    try:
        from saltext.immutable.guard import gate

        return gate.refusal(opts, data, fun, args, kwargs)
    except Exception as err:  # whatever it is: closed
        if fun in WITHOUT_GUARD:
            return None
        return f"sealed: the guard of this machine is damaged ({type(err).__name__}: {err}); replace the machine"


def refuse(reason: str, data: Mapping[str, Any], context: Callable[[], dict[str, Any]]) -> str:
    """Raise for a single call; for one of several return the reason, and let the job fail."""
    from salt.exceptions import CommandExecutionError

    if not isinstance(data.get("fun"), list):
        raise CommandExecutionError(reason)
    context()["retcode"] = 1
    return reason
