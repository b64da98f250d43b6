"""Immutable rollouts for Salt: bake images from states, roll fleets of them, refuse change."""

from __future__ import annotations

from importlib.util import find_spec

__version__ = "0.1.0"

_KINDS = ("executors", "grains", "modules", "runners", "states")


def loader_dirs() -> dict[str, list[str]]:
    """Tell Salt's loader where our modules are (entry point ``salt.loader``)."""
    dirs: dict[str, list[str]] = {}
    for kind in _KINDS:
        spec = find_spec(f"saltext.immutable.{kind}")
        if spec is not None:
            dirs[kind] = list(spec.submodule_search_locations or ())
    return dirs
