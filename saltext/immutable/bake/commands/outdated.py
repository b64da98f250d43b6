"""Tell which images have updates of their packages at the mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from saltext.immutable import spec
from saltext.immutable.bake.context import Progress, machine_network, silent
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.store import Image, Store
from saltext.immutable.worker import Worker


def outdated(
    opts: Mapping[str, Any], name: str | None = None, *, progress: Progress = silent
) -> dict[str, dict[str, Any]]:
    """Return the images that channels name whose packages have updates, by name.

    ``name``: a recipe, or one image; None: all. Each image has channels, security (how many security updates), and
    packages: by name installed, candidate and security (whether the mirror says that it is one).
    """
    settings = spec.settings(opts)
    with closing(Store.open(settings.store)) as store:
        worker = Worker(opts, settings, "image", LOCAL)
        found: dict[str, dict[str, Any]] = {}
        for image, channels in _current(store, name):
            progress(f"asking the mirrors for updates of {image.name}", "image/updates", recipe=image.recipe)
            packages = worker("updates", order={"below": list(image.layers), **machine_network(settings)})
            if packages:
                security = sum(bool(each["security"]) for each in packages.values())
                found[image.name] = {"channels": channels, "security": security, "packages": packages}
        return found


def _current(store: Store, name: str | None) -> list[tuple[Image, list[str]]]:
    """Return the images that ``name`` means, each with the channels that name it."""
    named = store.channels()
    if name is not None and not any(image.recipe == name for image in store.images()):
        image = store.image(name)
        return [(image, named.get(image.digest, []))]
    return [(image, named[image.digest]) for image in store.images(name) if image.digest in named]
