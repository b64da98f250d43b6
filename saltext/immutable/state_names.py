"""How messages name a state, and by which name a bake, the image and its machines know it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def name_of_state(state_id: Any, function: str, sls: Any) -> str:
    """Return the name of a state: ``id (function) of SLS``."""
    return f"{state_id} ({function})" + (f" of {sls}" if sls else "")


def name_of_result(tag: str, result: Mapping[str, Any]) -> str:
    """Return the name of the state that a result is of. ``tag``: its key in what Salt returns."""
    module, state_id, _, function = [*tag.split("_|-"), "", "", ""][:4]
    return name_of_state(result.get("__id__") or state_id, f"{module}.{function}", result.get("__sls__"))
