"""Step: the image is signed, with its provenance."""

from __future__ import annotations

import socket
from typing import Any

from saltext.immutable.bake import signatures
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.phases import phase
from saltext.immutable.images import provenance


def sign(context: BakeContext, stack: Stack) -> Stack:
    """Sign the image, unless an earlier bake did so. Raises CommandExecutionError where its signature does not fit."""
    sealed = stack.require_sealed()
    image = sealed.image
    with phase("sign"):
        document = provenance.document(image.name, image.digest, _layers(stack), _run(context, stack))
        signatures.sign_image(context.builder, context.store, context.settings, image, sealed.made, document)
    return stack


def _layers(stack: Stack) -> list[dict[str, Any]]:
    """Return the layers, each with what it was made from: that of a parent image, whose own provenance says more."""
    origins = {**stack.origins, **{f"states of {name}": origin for name, origin in stack.state_origins.items()}}
    return [{**layer, "inputs": layer.get("parent") or origins.get(layer["what"])} for layer in stack.layers]


def _run(context: BakeContext, stack: Stack) -> dict[str, Any]:
    """Return by whom, where, when and how the image was baked."""
    finished = context.clock()
    return {
        "recipe": context.recipe.name,
        "policy": context.policy(stack.given.policy),
        "versions": context.versions,
        "builder": context.settings.builder or socket.gethostname(),
        "who": context.user,
        "refresh": context.refresh,
        "grains": stack.grains,
        "started": finished - stack.seconds,
        "finished": finished,
    }
