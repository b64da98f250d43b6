"""Step: the image's tests are run on a machine of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from saltext.immutable.bake import image_tests, locks, temporary_key
from saltext.immutable.bake.context import BakeContext, machine_network, master_address
from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.phases import phase
from saltext.immutable.minions import machine_config
from saltext.immutable.spec.model import ImageTest
from saltext.immutable.store import Image


def test(context: BakeContext, stack: Stack) -> Stack:
    """Return the stack with the results of the image's tests, which are kept in the store.

    Tests are run unless the image passed the same ones before. One that fails raises nothing here: the step `commit`
    keeps the image for inspection first. The image is not in the store yet, where it would count as good.
    """
    image, recipe = stack.require_sealed().image, context.recipe
    with phase("booted tests"):
        files = image_tests.files(layer_key.tree(context.opts)) if image_tests.are_files(recipe) else {}
        wanted = image_tests.order(recipe, recipe.tests.of_image)
        key = image_tests.key(wanted, stack.state_origins, files, *([len(recipe.tests.vm)] if recipe.tests.vm else []))
        results, boot_disk = image_tests.passed(context.store, image.digest, key), False
        if results is None:
            results = [result for layer in stack.layers for result in layer.get("tests", ())]
            results += _run(context, stack, image, "test_image", recipe.tests.booted)
            boot_disk = not image_tests.failed(results)
    if boot_disk and recipe.tests.vm:
        with phase("vm tests"):
            results += _run(context, stack, image, "test_disk", recipe.tests.vm)
    image_tests.keep(context.store, recipe.name, image.digest, results, key)
    return replace(stack, results=tuple(results))


def _run(
    context: BakeContext, stack: Stack, image: Image, function: str, wanted: Sequence[ImageTest]
) -> list[dict[str, Any]]:
    """Return the results of tests that a function of the builder runs on a machine of the image."""
    if not wanted:
        return []
    recipe = context.recipe
    context.progress(f"testing {image.name} on a machine of its own", "image/testing", image=image.name)
    order = {
        "image": image.digest,
        "bake_id": recipe.bake_id,
        "minion": machine_config(context.opts, master_address(context.settings)),
        "within": recipe.bake_within,
        "secrets": list(stack.secrets),
        "tests": image_tests.order(recipe, wanted),
        "vm": asdict(recipe.vm),
        **machine_network(context.settings),
    }
    with locks.recipe_lock(context.store, recipe.name, context.progress, wait=True):
        temporary_key.delete_leftover(context, recipe)
        with temporary_key.enrolled(context, recipe.bake_id):
            return [dict(each) for each in context.builder(function, order=order)]
