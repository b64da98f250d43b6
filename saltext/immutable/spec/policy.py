"""The policy of an image: what its recipe and those that it inherits from set for the machines that run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saltext.immutable.spec.model import Recipe


def policy(chain: Sequence[Recipe]) -> dict[str, Any]:
    """Return the policy of an image, as data for JSON; ``chain``: its recipes, the root first.

    Keys: ``guard`` (allow, deny, dry_runs, returners); ``writable``; ``exec``; ``limits``: unit to ``memory`` (bytes)
    and ``tasks``, of which a child replaces those of the same unit; ``mutable``; ``states``: what the bake applied, a
    list of mappings with ``sls`` (``highstate`` or a list), ``saltenv`` and ``pillarenv``; ``at_launch``: such a list.
    A child inherits all of it; dry runs are refused if one of the recipes refuses them.
    """
    return {
        "guard": {
            "allow": _merged(recipe.guard.allow for recipe in chain),
            "deny": _merged(recipe.guard.deny for recipe in chain),
            "dry_runs": all(recipe.guard.dry_runs for recipe in chain),
            "returners": _merged(recipe.guard.returners for recipe in chain),
        },
        "at_launch": _at_launch(chain),
        "writable": _merged(recipe.writable for recipe in chain),
        "exec": _merged(recipe.exec for recipe in chain),
        "limits": {unit: dict(limits) for recipe in chain for unit, limits in recipe.limits.items()},
        "mutable": _merged(recipe.mutable for recipe in chain),
        "states": [_applied(recipe, recipe.states) for recipe in chain if recipe.states],
    }


def _merged(lists: Any) -> list[str]:
    """Return each word once, in the order of their first places."""
    return list(dict.fromkeys(word for words in lists for word in words))


def _at_launch(chain: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Return the SLS files of each recipe, with its environments; none twice in the same environments."""
    found: list[dict[str, Any]] = []
    for recipe in chain:
        known = {sls for step in found if step == _applied(recipe, step["sls"]) for sls in step["sls"]}
        fresh = [sls for sls in dict.fromkeys(recipe.at_launch) if sls not in known]
        found += [_applied(recipe, fresh)] if fresh else []
    return found


def _applied(recipe: Recipe, states: str | Sequence[str]) -> dict[str, Any]:
    sls = states if isinstance(states, str) else list(states)
    return {"sls": sls, "saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
