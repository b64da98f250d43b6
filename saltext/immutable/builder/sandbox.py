"""A machine without an init that runs single commands on a stack of layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.builder import offline
from saltext.immutable.machines.description import Machine


def sandbox(
    workspace: Path,
    order: Mapping[str, Any],
    lower: tuple[str, ...],
    *,
    binds: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Machine:
    """Return the description of such a machine, to be launched by `machine.temporary`.

    ``workspace``: its folder ``fs`` takes the changes. ``order``: a mapping with bridge, subnet, and offline where
    nothing may be fetched. ``lower``: short names of the layers, root first. ``binds`` and ``files``: what of this host
    is mounted, by path inside.
    """
    return Machine(
        minion_id=f"bake-{workspace.name}",
        image="",
        lower=lower,
        minion={},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=False,
        upper=str(workspace / "fs"),
        binds=binds or {},
        files=files or {},
        boot=False,
        route=offline.route(order),
    )
