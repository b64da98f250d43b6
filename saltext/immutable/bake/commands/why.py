"""Tell what the next bake of a recipe would build, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from saltext.immutable import spec
from saltext.immutable.bake import bake as baking
from saltext.immutable.bake.context import BakeContext, Progress, silent
from saltext.immutable.bake.keys import changed_inputs, last_bake
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Store
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
    found = changed_inputs.of_layers(layers, changed_inputs.plain(stack.origins)) if layers is not None else []
    for each in context.chain:
        last, now = known.get(each.name), stack.parts.get(each.name)
        if last and now:
            found += changed_inputs.changes(each.name, last, now)
        elif each.states and not last:
            found.append(f"{each.name}: {_NO_RECORD}")
    return found + changed_inputs.of_packages(stack.own_packages(context.updates.installed), context.updates.candidates)


def _unproven(chain: Sequence[Recipe], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what no key can see, by recipe, and whether that counts as unchanged."""
    return {
        each.name: {"assume_stable": each.assume_stable, "what": list(last["unproven"])}
        for each in chain
        if (last := known.get(each.name)) and last.get("unproven")
    }
