"""The executor ``sudo``: as in Salt's core, but a sealed machine refuses what would change it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import salt.utils.path

SEAL_PATH = "/etc/immutable/seal.json"

__virtualname__ = "sudo"

__context__: dict[str, Any]
__opts__: dict[str, Any]
__salt__: dict[str, Any]
"""From Salt's loader."""


def __virtual__() -> str | bool:
    return __virtualname__ if __opts__.get("sudo_user") and salt.utils.path.which("sudo") else False


def execute(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call through ``sudo`` as core's executor does, or refuse as ``direct_call`` does."""
    if os.path.lexists(SEAL_PATH):
        from saltext.immutable.executors import direct_call

        reason = direct_call.refusal(opts, data, func, args, kwargs)
        if reason:
            return direct_call.refuse(reason, data, lambda: __context__)
    import salt.executors.sudo as core

    core.__opts__, core.__salt__, core.__context__ = __opts__, __salt__, __context__
    return core.execute(opts, data, func, args, kwargs)
