"""Step: the image is written into the store, and the channel names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saltext.immutable.bake import contents, image_tests, parent_image
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Stack


def commit(context: BakeContext, stack: Stack) -> Stack:
    """Add the image to the store, then move the channel to it.

    Raises CommandExecutionError where the image failed its tests: it stays in the store, and no channel names it.
    """
    image, store = stack.require_sealed().image, context.store
    report = stack.report(context.channel) | {"packages": len(stack.packages)} | context.versions
    contents.keep(store, image.digest, _contents(context, stack))
    moved = store.channel(image.recipe, context.channel) != image.digest
    report |= {"policy": stack.policy(context.policy(stack.given.policy)), "phases": dict(stack.phases)}
    store.add_image(replace(image, report=report))
    image_tests.require(image.name, stack.results)
    store.set_channel(image.recipe, context.channel, image.digest, who=context.user)
    return replace(stack, moved=moved)


def _contents(context: BakeContext, stack: Stack) -> dict[str, Any]:
    """Return what went into the image, for comparing it with another one, and for its children."""
    return {
        "packages": dict(stack.packages),
        "states": dict(stack.state_origins),
        "grains": dict(stack.grains),
        "size": sum(layer.get("size", 0) for layer in stack.layers),
        "files": sum(layer.get("files", 0) for layer in stack.layers),
        "children": parent_image.handed_down(context, stack),
    }
