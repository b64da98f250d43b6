"""Settings of a minion by which Salt's loader leaves out a part of this pack. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

_LISTS = {
    "disable_executors": ("direct_call", "splay", "sudo"),
    "disable_grains": ("immutable",),
    "disable_modules": ("immutable",),
}
"""Setting to the names of ours that it must not list."""

_WHITELIST = "whitelist_modules"


def leaving_out(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that a sealed machine must not have, with the reason."""
    if config.get("grains_cache"):
        yield "grains_cache: the machine would tell the image and the fleet of an earlier start"
    for name in (*_LISTS, _WHITELIST):
        if (given := config.get(name)) and not isinstance(given, Container):
            yield f"{name}: it is {given!r} and no list, of which Salt can make nothing"
    for name, ours in _LISTS.items():
        if found := [each for each in ours if each in _names(config, name)]:
            yield f"{name}: Salt would not load {', '.join(found)}, a part of the guard"
    if (allowed := _names(config, _WHITELIST)) and "immutable" not in allowed:
        yield "whitelist_modules: Salt would not load immutable, which is not in that list"


def _names(config: Mapping[str, Any], setting: str) -> Container[Any]:
    """Return what a setting lists; nothing if it is no list."""
    given = config.get(setting)
    return given if given and isinstance(given, Container) else ()
