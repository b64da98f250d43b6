"""All that one pillar defines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import recipes as _recipes
from saltext.immutable.spec.fleets import fleet
from saltext.immutable.spec.model import Definitions
from saltext.immutable.spec.reading import Section, nearest

ROOT = "immutable"


def definitions(pillar: Mapping[str, Any]) -> Definitions:
    """Return what ``pillar['immutable']`` defines, every reference in it resolved.

    Raises ``SaltInvocationError`` with a line for each problem: the pillar path, what is wrong, the mend.
    """
    _compiled(pillar)
    problems: list[str] = []
    read = Section(ROOT, pillar[ROOT], problems)
    found = Definitions(
        recipes={name: _recipes.recipe(name, section) for name, section in read.entries("recipes")},
        fleets={name: fleet(name, section) for name, section in read.entries("fleets")},
    )
    read.close()
    problems.extend([] if problems else _unresolved(found))
    if problems:
        raise SaltInvocationError("\n".join(problems))
    return found


def _compiled(pillar: Mapping[str, Any]) -> None:
    if pillar.get("_errors"):
        errors = "\n".join(str(error) for error in pillar["_errors"])
        raise SaltInvocationError(f"the pillar does not render; mend this first:\n{errors}")
    if ROOT not in pillar:
        raise SaltInvocationError(
            f"{ROOT}: the pillar has no such key; define recipes and fleets below it, "
            "and let the pillar's top file give it to the id that asked"
        )


def _unresolved(found: Definitions) -> Iterator[str]:
    orphans = list(_recipes.lineage(found.recipes))
    for name, sentence in orphans:
        yield f"{ROOT}:recipes:{name}:from:recipe: {sentence}"
    for name, sentence in [] if orphans else _recipes.nests(found.recipes):
        yield f"{ROOT}:recipes:{name}:writable: {sentence}"
    for name, sentence in _recipes.twins(found.recipes):
        yield f"{ROOT}:recipes:{name}:bake_id: {sentence}"
    for one, other in combinations(found.fleets.values(), 2):
        if one.traffic is not None and one.traffic == other.traffic:
            yield (
                f"{ROOT}:fleets:{other.name}:traffic: is that of fleet {one.name}, and each would count the other's "
                "machines as its own; give each a prefix (or a backend) of its own"
            )
    for fleet_ in found.fleets.values():
        if fleet_.recipe not in found.recipes:
            hint = nearest(fleet_.recipe, found.recipes)
            yield f"{ROOT}:fleets:{fleet_.name}:recipe: no recipe {fleet_.recipe!r}; {hint}"
