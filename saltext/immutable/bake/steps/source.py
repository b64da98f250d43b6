"""Step: the layers that a recipe begins with, if it has no parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from saltext.immutable.bake import cached_layers, parent_image
from saltext.immutable.bake.context import BakeContext, Builder
from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.finish import slim
from saltext.immutable.builder.sources import downloads
from saltext.immutable.spec.model import Recipe
from saltext.immutable.spec.origins import Debian, Directory, Disk, Oci, ParentImage, Source, Tarball


def source(context: BakeContext, recipe: Recipe, stack: Stack) -> Stack:
    """Return the stack with the root of a recipe; a recipe that has a parent stands on what is there."""
    if isinstance(recipe.source, ParentImage):
        return parent_image.stack(context, recipe, recipe.source)
    for found in roots(recipe.source, context.builder, context.offline):
        made_from = {**found.inputs, "slim": slim.settings(recipe.slim)}
        stack = replace(stack, origins={**stack.origins, found.order["what"]: {**made_from, **found.origin}})
        stack = cached_layers.find_or_build(
            context, recipe, stack, found.function, layer_key.key(made_from), found.order
        )
    return stack


@dataclass(frozen=True)
class Root:
    """How to make one of the layers that a recipe begins with."""

    function: str
    """The function of the builder that makes it."""
    inputs: dict[str, Any]
    order: dict[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What else the layer came from: the same content has the same key, whatever this says."""


def roots(source: Source, builder: Builder, offline: bool = False) -> list[Root]:
    """Return how to make the lowest layers of a recipe, in order; [] for a recipe that has a parent."""
    if isinstance(source, Debian):
        return [_debian(source, builder)]
    if isinstance(source, Tarball):
        return [_unpacked("tarball", source.location, source.sha256, builder)]
    if isinstance(source, Directory):
        return [_unpacked("directory", source.path, None, builder)]
    if isinstance(source, Disk):
        return [_disk(source, builder)]
    return _oci(source, builder, offline) if isinstance(source, Oci) else []


def _debian(source: Debian, builder: Builder) -> Root:
    order = {"suite": source.suite, "components": list(source.components), "mirror": source.mirror}
    made_from = layer_key.of_debian(source, builder("sources", **order))
    order |= {"what": f"debian {source.suite}", "packages": list(source.packages)}
    return Root("debian_layer", made_from, order)


def _oci(source: Oci, builder: Builder, offline: bool) -> list[Root]:
    order = {"oci": source.reference, "insecure": source.insecure}
    found = builder("oci_content", order={**order, "offline": offline})
    order |= found
    digests, many = found["layers"], len(found["layers"])
    return [
        Root(
            "oci_layer",
            layer_key.of_oci(digests[: number + 1], number == many - 1),
            {**order, "number": number, "what": f"oci {source.reference}, layer {number + 1} of {many}"},
            {"image": found["image"]},
        )
        for number in range(many)
    ]


def _disk(source: Disk, builder: Builder) -> Root:
    found = _unpacked("disk", source.location, source.sha256, builder)
    order = {**found.order, "partition": source.partition}
    return Root("root_layer", layer_key.of_disk(order["sha256"], source.partition), order)


def _unpacked(kind: str, place: str, sha256: str | None, builder: Builder) -> Root:
    content = sha256 or builder("root_content", order={kind: place})
    what = f"{kind} {PurePosixPath(place).name}" if downloads.is_url(place) else f"{kind} {place}"
    return Root("root_layer", layer_key.of_root(content), {kind: place, "sha256": content, "what": what})
