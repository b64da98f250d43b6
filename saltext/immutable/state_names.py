"""How messages name a state, and by which name a bake, the image and its machines know it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WIDTH = 80
"""Characters of the argument ``name`` that are shown."""


def name_of_state(state_id: Any, function: str, sls: Any, name: Any = "") -> str:
    """Return the name of a state: ``id (function) of SLS``, and its argument ``name`` if that is not its id.

    A state with ``names`` is several, of one id.
    """
    first_line = str(name or "").partition("\n")[0][:_WIDTH]
    shown = f"{first_line}{'...' if first_line != str(name) else ''}"
    own = f", name {shown}" if first_line and str(name) != str(state_id) else ""
    return f"{state_id} ({function})" + (f" of {sls}" if sls else "") + own


def name_of_result(tag: str, result: Mapping[str, Any]) -> str:
    """Return the name of the state that a result is of. ``tag``: its key in what Salt returns."""
    module, state_id, name, function = [*tag.split("_|-"), "", "", ""][:4]
    return name_of_state(result.get("__id__") or state_id, f"{module}.{function}", result.get("__sls__"), name)
