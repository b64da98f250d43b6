"""An image as a file on the builder, as asked for on the master."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.bake import sign, turns
from saltext.immutable.export import builder
from saltext.immutable.hosts import Worker
from saltext.immutable.store import Store


def export(
    opts: Mapping[str, Any],
    ref: str,
    format: str,
    target: str,
    *,
    force: bool = False,
    test: bool = False,
    say: builder.Say = builder.nothing,
) -> dict[str, Any]:
    """Write an image that is not revoked to the file ``target`` of the builder; return what `builder` tells of it."""
    if format not in builder.FORMATS:
        raise SaltInvocationError(f"format: {format!r} is none of {', '.join(builder.FORMATS)}")
    settings = spec.settings(opts)
    order = {"format": format, "target": str(target), "force": bool(force), "test": bool(test)}
    work = Worker(opts, settings, "image", {"export_image": partial(builder.export_image, say=say)})
    with closing(Store.open(settings.store)) as store:
        image = store.usable(ref)
        with turns.baking(store, image.recipe, say):  # as a bake, it must not lose a layer that it reads
            made = work("export_image", order={**order, "digest": image.digest, "trusted": sign.trusted(settings)})
    return dict(made)
