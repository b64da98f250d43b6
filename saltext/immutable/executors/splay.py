"""The executor ``splay``: as in Salt's core, but a sealed machine refuses a call before the wait and not after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"

__context__: dict[str, Any]
__grains__: dict[str, Any]
"""From Salt's loader."""


def execute(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Wait as core's executor does and leave the call to the next one, or refuse it as ``direct_call`` does."""
    if os.path.lexists(SEAL_PATH):
        from saltext.immutable.executors import direct_call

        reason = direct_call.refusal(opts, data, func, args, kwargs)
        if reason:
            return direct_call.refuse(reason, data, lambda: __context__)
    import salt.executors.splay as core

    core.__grains__ = __grains__
    core.__init__(opts)
    return core.execute(opts, data, func, args, kwargs)
