"""Settings of a minion by which Salt's loader leaves out a part of this pack. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LISTS = {
    "disable_executors": ("direct_call", "splay", "sudo"),
    "disable_grains": ("immutable",),
    "disable_modules": ("immutable",),
}
"""Setting to the names of ours that it must not list."""


def leaving_out(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that a sealed machine must not have, with the reason."""
    if config.get("grains_cache"):
        yield "grains_cache: the machine would tell the image and the fleet of an earlier start"
    for name, ours in _LISTS.items():
        if found := [each for each in ours if each in (config.get(name) or ())]:
            yield f"{name}: Salt would not load {', '.join(found)}, a part of the guard"
    if (allowed := config.get("whitelist_modules")) and "immutable" not in allowed:
        yield "whitelist_modules: Salt would not load immutable, which is not in that list"
