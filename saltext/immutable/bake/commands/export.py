"""Have the builder write an image to a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.bake import locks
from saltext.immutable.builder.export import formats
from saltext.immutable.images import sign
from saltext.immutable.store import Store
from saltext.immutable.worker import Worker


def export(
    opts: Mapping[str, Any],
    ref: str,
    format: str,
    target: str,
    *,
    force: bool = False,
    test: bool = False,
    progress: formats.Progress = formats.silent,
) -> dict[str, Any]:
    """Write an image to the file ``target`` of the builder; return the builder's report, see `builder.export.formats`.

    Raises SaltInvocationError for an unknown format, CommandExecutionError where the image is revoked or not signed.
    """
    if format not in formats.FORMATS:
        raise SaltInvocationError(f"format: {format!r} is not one of {', '.join(formats.FORMATS)}")
    settings = spec.settings(opts)
    order = {"format": format, "target": str(target), "force": bool(force), "test": bool(test)}
    work = Worker(opts, settings, "image", {"export_image": partial(formats.export_image, progress=progress)})
    with closing(Store.open(settings.store)) as store:
        image = store.usable(ref)
        with locks.baking(store, image.recipe, progress):  # as a bake, it must not lose a layer that it reads
            made = work("export_image", order={**order, "digest": image.digest, "trusted": sign.trusted(settings)})
    return dict(made)
