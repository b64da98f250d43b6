"""Tell what the next bake of a recipe would build, and why; which images have updates at the mirrors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from saltext.immutable import spec
from saltext.immutable.bake import bake as baking
from saltext.immutable.bake.context import BakeContext, Progress, machine_network, silent
from saltext.immutable.bake.keys import last_bake, why
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Image, Store
from saltext.immutable.worker import Worker

_NO_RECORD = "it is not known what its last bake was made from"


def explain(
    opts: Mapping[str, Any], name: str, *, updates: bool = False, progress: Progress = silent
) -> dict[str, Any]:
    """Return what has changed since the last bake of a recipe, and what the next one would build.

    ``updates``: ask the mirrors as well. Returns recipe, image (the newest), last (what changed from the bake before it
    to it), changed (what changed since), unproven (by recipe: assume_stable, and what no key can see), and builds (the
    layers that the next bake would build).
    """
    settings = spec.settings(opts)
    with closing(Store.open(settings.store)) as store:
        context = baking.with_updates(
            BakeContext(
                opts=opts,
                settings=settings,
                store=store,
                builder=Worker(opts, settings, "image", LOCAL),
                chain=baking.recipe_chain(opts, name),
                refresh="updates" if updates else "never",
                preview=True,
                progress=progress,
            )
        )
        stack = baking.stack_layers(context)
        baking.preview(context, stack)  # raises where the image was revoked
        known = {each.name: last_bake.last(store, each.name) for each in context.chain if each.states}
        newest = next(iter(store.images(name)), None)
        return {
            "recipe": name,
            "image": newest.name if newest else None,
            "last": [sentence for last in known.values() if last for sentence in last.get("because", ())],
            "changed": _changed(context, stack, known),
            "unproven": _unproven(context.chain, known),
            "builds": [layer["what"] for layer in stack.layers if not layer["cached"]],
        }


def _changed(context: BakeContext, stack: Stack, known: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is not as it was at the last bake."""
    layers = next((last["layers"] for last in known.values() if last), None)
    found = why.of_layers(layers, why.plain(stack.origins)) if layers is not None else []
    for each in context.chain:
        last, now = known.get(each.name), stack.parts.get(each.name)
        if last and now:
            found += why.changes(each.name, last, now)
        elif each.states and not last:
            found.append(f"{each.name}: {_NO_RECORD}")
    return found + why.of_packages(context.updates.installed, context.updates.candidates)


def _unproven(chain: Sequence[Recipe], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what no key can see, by recipe, and whether that counts as unchanged."""
    return {
        each.name: {"assume_stable": each.assume_stable, "what": list(last["unproven"])}
        for each in chain
        if (last := known.get(each.name)) and last.get("unproven")
    }


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
