"""Find a layer by its key, or have the builder build it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saltext.immutable.bake import image_tests, temporary_key
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Layer, Stack
from saltext.immutable.builder import offline, phases
from saltext.immutable.builder.finish import slim
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Image

_KEPT = ("packages", "grains", "sls", "phases", "slim", "private_keys", "deferred", "restless", "services", "git")


def find_or_build(
    context: BakeContext, recipe: Recipe, stack: Stack, function: str, key: str, order: Mapping[str, Any]
) -> Stack:
    """Return the stack with the layer that ``key`` leads to, or with a new one; a preview builds nothing."""
    found, damaged = find(context, stack, key)
    if found is not None:
        return found.amend_top(what=order["what"])  # the same content may have come from elsewhere before
    if context.preview:
        return foresee(stack, order["what"])
    return build(context, recipe, stack, function, {**order, "instead_of": damaged}, key)


def find(
    context: BakeContext, stack: Stack, key: str, *, assume_stable: bool = False
) -> tuple[Stack | None, list[str]]:
    """Return the stack with the layer that ``key`` leads to; None if there is none, or it may not be used again.

    Also returns the digest of the layer if it is damaged, see `look_up`. ``assume_stable``: what no key can see counts
    as unchanged.
    """
    if not all(stack.digests):  # in a preview nothing is known above a layer that would be built
        return None, []
    layer, damaged = look_up(context, key)
    if layer is None or context.refresh == "always" or context.updates.concern(stack.own_packages(layer["packages"])):
        return None, damaged
    if layer.get("unproven") and not assume_stable:
        return None, damaged
    return stack.push({**layer, "cached": True, "key": key}), damaged


def look_up(context: BakeContext, key: str) -> tuple[Layer | None, list[str]]:
    """Return the layer that ``key`` leads to, None if there is no sound one.

    Also returns the digest of one that is damaged, which is reported: what is built instead takes its place.
    """
    found: Layer | None = context.builder("find_layer", key=key)
    if found is None or not found.get("damaged"):
        return found, []
    warning = f"{found['damaged']}; it would be built again" if context.preview else found["damaged"]
    context.progress(f"warning: {warning}", "image/warning", recipe=context.recipe.name, warning=warning)
    return None, [found["digest"]]


def foresee(stack: Stack, what: str) -> Stack:
    """Return the stack with a layer that would be built."""
    grains = stack.top["grains"] if stack.layers else {}
    return stack.push({"what": what, "digest": "", "grains": grains, "cached": False})


def build(
    context: BakeContext,
    recipe: Recipe,
    stack: Stack,
    function: str,
    order: Mapping[str, Any],
    key: str | None = None,
) -> Stack:
    """Return the stack with a layer that the builder's ``function`` makes on top of it, kept under ``key``.

    Without a key the caller keeps it, once it has seen that the inputs did not change during the build. Raises
    CommandExecutionError where the build or one of its tests fails.
    """
    what = order["what"]
    more = {"below": stack.digests, "slim": slim.settings(recipe.slim), "offline": context.offline}
    context.progress(f"building the layer: {what}", "image/layer", what=what)

    def begin_phase(name: str) -> None:
        context.progress(f"{what}: {name}", "image/phase", what=what, phase=name)

    enrolled = temporary_key.enrolled(context, order.get("bake_id"))
    with offline.explain_missing(context.offline), enrolled, phases.report_to(begin_phase):
        built = context.builder(function, order={**order, **more})
    image_tests.require_inside(context.store, recipe.name, built.get("tests", []))
    if key is not None:
        keep(context, key, built)
    images = _unusable(context, built)
    _report(context, what, built, images)
    return stack.push({**built, "unusable": [image.name for image in images], "cached": False, "key": key})


def _unusable(context: BakeContext, built: Layer) -> list[Image]:
    """Return the images that have a damaged layer in whose place another content was built."""
    lost = set(built.get("differs_from", ()))
    return [image for image in context.store.images() if lost.intersection(image.layers)] if lost else []


def _report(context: BakeContext, what: str, built: Layer, unusable: Sequence[Image]) -> None:
    sentence = f"built {what} in {built['seconds']:.1f} s ({phases.summary(built['phases'])})"
    context.progress(sentence, "image/layer", what=what, digest=built["digest"], seconds=built["seconds"])
    if built.get("damaged"):
        again = _comparison(what, built, unusable)
        context.progress(again, "image/warning", recipe=context.recipe.name, warning=again)
    for each in built.get("deferred", ()):
        sentence = f"deferred to the boot: {each['what']} ({each['state']})"
        context.progress(sentence, "image/deferred", recipe=context.recipe.name, **each)
    if saved := slim.summary(built["slim"]):
        context.progress(saved, "image/slim", what=what, saved=built["slim"])


def _comparison(what: str, built: Layer, unusable: Sequence[Image]) -> str:
    """Tell if a layer is the same as the damaged one in whose place it was built, and else which images are lost."""
    before = ", ".join(digest[:12] for digest in built.get("differs_from", ()))
    if not before:
        return f"{what} is the same as before it was damaged; what ran on it is tainted, and is replaced"
    sentence = f"{what} differs from the layer that was damaged ({before}), which is set aside"
    if not unusable:
        return f"{sentence}; no image has that"
    names = ", ".join(image.name for image in unusable)
    recipes = " and ".join(sorted({image.recipe for image in unusable}))
    return (
        f"{sentence}. What runs on that is tainted, and these images cannot be used any more: {names}; bake {recipes}, "
        "and roll their fleets (salt-run fleet.roll)"
    )


def keep(context: BakeContext, key: str, layer: Layer) -> None:
    """Let ``key`` lead to a layer, and keep with it what is known of the layer."""
    about = {name: layer.get(name) for name in _KEPT}
    about |= {name: list(layer.get(name, ())) for name in ("unproven", "tests")}
    context.builder("keep_layer", key=key, digest=layer["digest"], warnings=layer.get("warnings", []), about=about)
