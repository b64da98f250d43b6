"""Step: what the image was made from is written down, so that the next bake can tell what changed."""

from __future__ import annotations

from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.keys import changed_inputs, last_bake
from saltext.immutable.bake.stack import Stack


def remember(context: BakeContext, stack: Stack) -> Stack:
    """Write down what each recipe was made from, what of that changed since the bake before, and the fingerprint."""
    image = stack.require_sealed().image
    origins = changed_inputs.plain(stack.origins)
    for number, (recipe, parts) in enumerate(stack.parts.items()):
        before = last_bake.last(context.store, recipe)
        because = changed_inputs.changes(recipe, before, parts) if before else []
        if before and number == 0:
            because = [*changed_inputs.moved(before["layers"], origins), *because]
        if before and not because:
            because = list(before.get("because", []))
        known = {**parts, "layers": origins, "image": image.name, "because": because}
        last_bake.keep_last(context.store, recipe, known)
    if context.up_to_date is not None:
        context.up_to_date.keep(context.chain, stack.layers, image.digest)
    return stack
