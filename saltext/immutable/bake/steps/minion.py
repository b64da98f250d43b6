"""Step: the layer with Salt and this pack."""

from __future__ import annotations

from dataclasses import replace

from saltext.immutable import __version__
from saltext.immutable.bake import cached_layers
from saltext.immutable.bake.context import BakeContext, machine_network
from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.finish import slim
from saltext.immutable.spec.model import Recipe


def minion(context: BakeContext, recipe: Recipe, stack: Stack) -> Stack:
    """Return the stack with Salt, if the recipe installs it."""
    if recipe.minion is None:
        return stack
    made_from = {**layer_key.of_minion(recipe.minion, stack.top["digest"]), "slim": slim.settings(recipe.slim)}
    requirement = made_from["requirement"]
    what = f"minion {requirement}"
    order = {"what": what, "requirement": requirement, "version": __version__, **machine_network(context.settings)}
    stack = replace(stack, origins={**stack.origins, what: made_from})
    return cached_layers.find_or_build(context, recipe, stack, "minion_layer", layer_key.key(made_from), order)
