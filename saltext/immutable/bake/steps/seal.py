"""Step: the layers become an image with a digest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saltext.immutable.bake import revoked
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Sealed, Stack
from saltext.immutable.builder.phases import phase
from saltext.immutable.images import manifest, sign
from saltext.immutable.store import Image


def seal(context: BakeContext, stack: Stack) -> Stack:
    """Return the stack with the image that the builder makes of it.

    Raises CommandExecutionError where the same image was revoked.
    """
    recipe, order = context.recipe, image_order(context, stack)
    revoked.require_not_revoked(recipe.name, manifest.image_digest(order), context.store.revocations())
    with phase("seal"):
        trusted = sign.trusted(context.settings)
        made = context.builder("make_image", order={**order, **context.versions}, trusted=trusted)
    image = Image(made["image"], recipe.name, tuple(order["layers"]), made["created"], recipe.read_only, {})
    return replace(stack, sealed=Sealed(image, made))


def image_order(context: BakeContext, stack: Stack) -> dict[str, Any]:
    """Return the inputs of an image, from which its digest follows."""
    recipe = context.recipe
    policy = stack.policy(context.policy(stack.given.policy))
    of_recipe = {"recipe": recipe.name, "read_only": recipe.read_only, "policy": policy}
    return {**of_recipe, "layers": stack.digests, "grains": dict(stack.grains)}
