"""Step: the layer that a recipe begins with, if it has no parent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from saltext.immutable.bake import layers
from saltext.immutable.bake.context import BakeContext, Builder
from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.finish import slim
from saltext.immutable.builder.sources import downloads
from saltext.immutable.spec.model import Debian, Directory, Recipe, Source, Tarball


def source(context: BakeContext, recipe: Recipe, stack: Stack) -> Stack:
    """Return the stack with the root of a recipe; a recipe that has a parent stands on what is there."""
    found = root(recipe.source, context.builder)
    if found is None:
        return stack
    made_from = {**found.inputs, "slim": slim.settings(recipe.slim)}
    stack = replace(stack, origins={**stack.origins, found.order["what"]: made_from})
    return layers.find_or_build(context, recipe, stack, found.function, layer_key.key(made_from), found.order)


@dataclass(frozen=True)
class Root:
    """How to make the layer that a recipe begins with."""

    function: str
    """The function of the builder that makes it."""
    inputs: dict[str, Any]
    order: dict[str, Any]


def root(source: Source, builder: Builder) -> Root | None:
    """Return how to make the lowest layer of a recipe; None for a recipe that has a parent."""
    if isinstance(source, Debian):
        return _debian(source, builder)
    if isinstance(source, Tarball):
        return _unpacked("tarball", source.location, source.sha256, builder)
    return _unpacked("directory", source.path, None, builder) if isinstance(source, Directory) else None


def _debian(source: Debian, builder: Builder) -> Root:
    order = {"suite": source.suite, "components": list(source.components), "mirror": source.mirror}
    made_from = layer_key.of_debian(source, builder("sources", **order))
    order |= {"what": f"debian {source.suite}", "packages": list(source.packages)}
    return Root("debian_layer", made_from, order)


def _unpacked(kind: str, place: str, sha256: str | None, builder: Builder) -> Root:
    content = sha256 or builder("root_content", order={kind: place})
    what = f"{kind} {PurePosixPath(place).name}" if downloads.is_url(place) else f"{kind} {place}"
    return Root("root_layer", layer_key.of_root(content), {kind: place, "sha256": content, "what": what})
