"""Read all recipes and fleets of one pillar, and check the references between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import rendering
from saltext.immutable.spec import recipes as _recipes
from saltext.immutable.spec import writable_paths
from saltext.immutable.spec.fleets import fleet
from saltext.immutable.spec.model import Definitions
from saltext.immutable.spec.reading import nearest
from saltext.immutable.spec.section import Section, refuse
from saltext.immutable.text import quoted

ROOT = "immutable"


def definitions(pillar: Mapping[str, Any]) -> Definitions:
    """Return the recipes and fleets in ``pillar['immutable']``.

    Raises ``SaltInvocationError`` with a line for each problem: the pillar path, what is wrong, what to write.
    """
    _require_compiled(pillar)
    problems: list[str] = []
    read = Section(ROOT, pillar[ROOT], problems)
    found = Definitions(
        recipes={name: _recipes.recipe(name, section) for name, section in read.entries("recipes")},
        fleets={name: fleet(name, section) for name, section in read.entries("fleets")},
    )
    read.close()
    problems.extend([] if problems else _unresolved(found))
    refuse(ROOT, problems)
    return found


def _require_compiled(pillar: Mapping[str, Any]) -> None:
    if pillar.get("_errors"):
        errors = pillar["_errors"] if isinstance(pillar["_errors"], list) else [pillar["_errors"]]
        raise SaltInvocationError(f"the pillar does not render; correct this first:\n{rendering.messages(errors)}")
    if ROOT not in pillar:
        raise SaltInvocationError(
            f"{ROOT}: the pillar has no such key; define recipes and fleets below it, "
            "and assign it in the pillar's top file to the id that this command runs as"
        )


def _unresolved(found: Definitions) -> Iterator[str]:
    wrong_parents = list(_recipes.wrong_parents(found.recipes))
    for name, key, sentence in wrong_parents:
        yield f"{ROOT}:recipes:{name}:from:{key}: {sentence}"
    for name, sentence in [] if wrong_parents else writable_paths.overlapping_paths(found):
        yield f"{ROOT}:recipes:{name}:writable: {sentence}"
    for name, sentence in [] if wrong_parents else writable_paths.useless_exec(found):
        yield f"{ROOT}:recipes:{name}:exec: {sentence}"
    for name, sentence in _recipes.shared_bake_ids(found.recipes):
        yield f"{ROOT}:recipes:{name}:bake_id: {sentence}"
    for one, other in combinations(found.fleets.values(), 2):
        if one.traffic is not None and one.traffic == other.traffic:
            yield (
                f"{ROOT}:fleets:{other.name}:traffic: is the same as that of fleet {one.name}, so each fleet would "
                "count the other's machines as its own; give each a prefix (or a backend) of its own"
            )
    for fleet_ in found.fleets.values():
        if fleet_.recipe not in found.recipes:
            hint = nearest(fleet_.recipe, found.recipes)
            yield f"{ROOT}:fleets:{fleet_.name}:recipe: no recipe {quoted(fleet_.recipe)}; {hint}"
