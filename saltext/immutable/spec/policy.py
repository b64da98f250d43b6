"""The policy of an image: what its recipe and those that it inherits from set for the machines that run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from saltext.immutable.spec.model import Recipe


def policy(chain: Sequence[Recipe], given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return the policy of an image, as data for JSON; ``chain``: its recipes, the root first.

    ``given``: the policy of the image that the first of them is built from.

    Keys: ``guard`` (allow, deny, dry_runs, returners); ``writable``; ``exec``; ``limits``: unit to ``memory`` (bytes)
    and ``tasks``, of which a child replaces those of the same unit; ``mutable``; ``states``: what the bake applied, a
    list of mappings with ``sls`` (``highstate`` or a list), ``saltenv`` and ``pillarenv``; ``at_launch``: such a list.
    A child inherits all of it; dry runs are refused if one of the recipes refuses them.
    """
    guard = given.get("guard", {})
    return {
        "guard": {
            "allow": _merged(guard, "allow", (recipe.guard.allow for recipe in chain)),
            "deny": _merged(guard, "deny", (recipe.guard.deny for recipe in chain)),
            "dry_runs": guard.get("dry_runs", True) and all(recipe.guard.dry_runs for recipe in chain),
            "returners": _merged(guard, "returners", (recipe.guard.returners for recipe in chain)),
        },
        "at_launch": _at_launch(chain, given.get("at_launch", ())),
        "writable": _merged(given, "writable", (recipe.writable for recipe in chain)),
        "exec": _merged(given, "exec", (recipe.exec for recipe in chain)),
        "limits": {
            **given.get("limits", {}),
            **{unit: dict(limits) for recipe in chain for unit, limits in recipe.limits.items()},
        },
        "mutable": _merged(given, "mutable", (recipe.mutable for recipe in chain)),
        "states": [*given.get("states", ()), *(_applied(recipe, recipe.states) for recipe in chain if recipe.states)],
    }


def _merged(given: Mapping[str, Sequence[str]], key: str, lists: Iterable[Sequence[str]]) -> list[str]:
    """Return each word once, in the order of their first places, those that are given first."""
    return list(dict.fromkeys([*given.get(key, ()), *(word for words in lists for word in words)]))


def _at_launch(chain: Sequence[Recipe], given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the SLS files of each recipe, with its environments; none twice in the same environments."""
    found: list[dict[str, Any]] = [dict(each) for each in given]
    for recipe in chain:
        known = {sls for step in found if step == _applied(recipe, step["sls"]) for sls in step["sls"]}
        fresh = [sls for sls in dict.fromkeys(recipe.at_launch) if sls not in known]
        found += [_applied(recipe, fresh)] if fresh else []
    return found


def _applied(recipe: Recipe, states: str | Sequence[str]) -> dict[str, Any]:
    sls = states if isinstance(states, str) else list(states)
    return {"sls": sls, "saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
