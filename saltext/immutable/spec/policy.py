"""What an image says of the machines that run it: a recipe's own word and what it inherits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saltext.immutable.spec.model import Recipe


def policy(chain: Sequence[Recipe]) -> dict[str, Any]:
    """Return the policy of an image as JSON holds it; ``chain``: its recipes, the root first.

    ``guard`` (allow, deny, dry_runs), ``writable``, ``mutable``, ``states``: what was applied, as a list of mappings
    with ``sls`` (``highstate`` or a list), ``saltenv`` and ``pillarenv``; and ``at_launch``, likewise. A child inherits
    all of it; dry runs are refused as soon as one of the recipes refuses them.
    """
    return {
        "guard": {
            "allow": _together(recipe.guard.allow for recipe in chain),
            "deny": _together(recipe.guard.deny for recipe in chain),
            "dry_runs": all(recipe.guard.dry_runs for recipe in chain),
        },
        "at_launch": _at_launch(chain),
        "writable": _together(recipe.writable for recipe in chain),
        "mutable": _together(recipe.mutable for recipe in chain),
        "states": [_applied(recipe, recipe.states) for recipe in chain if recipe.states],
    }


def _together(lists: Any) -> list[str]:
    """Return each word once, where it comes first."""
    return list(dict.fromkeys(word for words in lists for word in words))


def _at_launch(chain: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Return what each recipe has applied at launch, in its own environment; nothing twice."""
    found: list[dict[str, Any]] = []
    for recipe in chain:
        known = {sls for order in found if order == _applied(recipe, order["sls"]) for sls in order["sls"]}
        fresh = [sls for sls in dict.fromkeys(recipe.at_launch) if sls not in known]
        found += [_applied(recipe, fresh)] if fresh else []
    return found


def _applied(recipe: Recipe, states: str | Sequence[str]) -> dict[str, Any]:
    sls = states if isinstance(states, str) else list(states)
    return {"sls": sls, "saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
