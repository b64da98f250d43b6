"""Immutable rollouts for Salt: bake images from states, roll fleets of them, refuse change.

Salt's loader calls `loader_dirs` in every process of a master and a minion, so this file imports nothing of the library
when it is loaded. ``docs/architecture.md`` says which folder runs where.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec

__version__ = "0.1.0"

_KINDS = ("executors", "grains", "modules", "runners", "states")


def loader_dirs() -> dict[str, list[str]]:
    """Tell Salt's loader where our modules are (entry point ``salt.loader``).

    It also lets a minion judge whole jobs (see ``guard/intake.py``): Salt calls it in the process that receives jobs,
    before the first one, and no setting of a minion leaves it out.
    """
    with suppress(Exception):  # a damaged library: the executor refuses the calls
        from saltext.immutable.guard import intake

        intake.install()
    dirs: dict[str, list[str]] = {}
    for kind in _KINDS:
        spec = find_spec(f"saltext.immutable.{kind}")
        if spec is not None:
            dirs[kind] = list(spec.submodule_search_locations or ())
    return dirs
