"""A machine without an init, to run single commands in on top of a stack of layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.builder import offline
from saltext.immutable.machines.machine import Machine


def workshop(
    workspace: Path,
    order: Mapping[str, Any],
    lower: tuple[str, ...],
    *,
    binds: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Machine:
    """Return the order for one; what is changed in it is in ``workspace``/fs. ``order`` has bridge and subnet."""
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
