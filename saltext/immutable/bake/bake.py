"""From a recipe to an image, as seen from the master: `step_order` lists the steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import minions, spec
from saltext.immutable.bake import contents, locks, revoked, temporary_key
from saltext.immutable.bake import refresh as refreshing
from saltext.immutable.bake.context import BakeContext, Progress, machine_network, silent
from saltext.immutable.bake.keys.up_to_date import UpToDateCheck
from saltext.immutable.bake.stack import Stack
from saltext.immutable.bake.step_order import IMAGE, LAYERS
from saltext.immutable.bake.steps.seal import image_order
from saltext.immutable.builder import offline
from saltext.immutable.builder.finish import private_keys
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.builder.phases import timed
from saltext.immutable.images import manifest
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Store
from saltext.immutable.worker import Worker


def bake(
    name: str,
    opts: Mapping[str, Any],
    *,
    refresh: bool | str = False,
    channel: str = "stable",
    test: bool = False,
    progress: Progress = silent,
    user: str | None = None,
    cache: str | None = None,
    again: bool = False,
    keep_failed: object = None,
) -> dict[str, Any]:
    """Bake recipe ``name`` and make ``channel`` name the image.

    ``refresh``: with ``updates`` layers whose packages have updates at the mirrors are built again, with ``always``
    all. ``test``: only find out which layers would be built. ``cache``: ``only`` fetches nothing. ``again``: the
    states, applied a second time, must change nothing. ``keep_failed``: a duration, ``1h``, for which the machine of
    states that failed is kept.

    Returns image, digest, changed (whether the channel moved), cached (whether no layer was built), layers, channel,
    seconds, packages, and warnings: a sentence for each file that holds a secret of the pillar.
    Raises SaltInvocationError for a wrong argument, recipe or pillar, CommandExecutionError where the bake fails.
    """
    settings, how, keep_for = spec.settings(opts), refreshing.wanted(refresh), _seconds(keep_failed)
    with closing(Store.open(settings.store)) as store:
        builder = Worker(opts, settings, "image", LOCAL)
        check = UpToDateCheck.begin(store, opts, settings, name, channel)
        if how == "never" and not again and (answer := check.answer(builder)):
            return answer
        context = BakeContext(
            opts=opts,
            settings=settings,
            store=store,
            builder=builder,
            chain=recipe_chain(opts, name),
            channel=channel,
            refresh=how,
            preview=test,
            offline=offline.is_offline(cache, settings.cache, how != "never"),
            again=again,
            keep_failed=keep_for,
            user=user,
            progress=progress,
            up_to_date=check,
        )
        with nullcontext() if test else locks.baking(store, name, progress):
            return run(context)


def _seconds(keep_failed: object) -> float:
    try:
        return 0.0 if keep_failed is None else reading.duration(keep_failed)
    except ValueError as err:
        raise SaltInvocationError(f"keep_failed: {err}") from err


def recipe_chain(opts: Mapping[str, Any], name: str) -> tuple[Recipe, ...]:
    """Return the recipes that ``name`` is built from, the root first. Raises SaltInvocationError for no recipe."""
    definitions = minions.definitions(opts)
    if name not in definitions.recipes:
        known = ", ".join(sorted(definitions.recipes)) or "none"
        raise SaltInvocationError(f"immutable:recipes: there is no recipe {name!r}; the pillar has {known}")
    return tuple(definitions.chain(name))


def run(context: BakeContext) -> dict[str, Any]:
    """Bake, or preview the bake; return what an operator is shown, see `bake`."""
    if not context.preview:
        context.builder("sweep")
    context = with_updates(context)
    stack = stack_layers(context)
    if context.preview:
        return preview(context, stack)
    stack = make_image(context, stack)
    image = stack.require_sealed().image
    made = {"image": image.name, "digest": image.digest, "changed": stack.moved, "packages": len(stack.packages)}
    return {**stack.report(context.channel), **made}


def with_updates(context: BakeContext) -> BakeContext:
    """Return the context with what the mirrors have of the last image's packages, if the bake asks for it."""
    images = context.store.images(context.recipe.name) if context.refresh == "updates" else []
    if not images:
        return context
    last = images[0]
    context.progress(f"asking the mirrors for updates of {last.name}", "image/updates", recipe=context.recipe.name)
    order = {"below": list(last.layers), **machine_network(context.settings)}
    candidates = context.builder("candidates", order=order)
    installed = (contents.find(context.store, last.digest) or {}).get("packages", {})
    return replace(context, updates=refreshing.Updates(installed, candidates))


def stack_layers(context: BakeContext) -> Stack:
    """Return the layers of the image, each found or built; a preview builds none.

    A recipe's lock is held while its layers are made. Only a parent's lock is waited for: its layers are needed here.
    """
    began, stack = time.monotonic(), Stack()
    for recipe in context.chain:
        with locks.recipe_lock(context.store, recipe.name, context.progress, wait=recipe is not context.recipe):
            temporary_key.delete_leftover(context, recipe)
            for step in LAYERS:
                stack = step(context, recipe, stack)
                _require_sound(context, stack)
    if context.recipe.private_keys == "refuse":
        keys = [key for layer in stack.layers for key in layer.get("private_keys") or ()]
        private_keys.refuse(context.recipe.name, keys)
    for warning in stack.warnings:
        context.progress(f"warning: {warning}", "image/warning", recipe=context.recipe.name, warning=warning)
    return replace(stack, seconds=round(time.monotonic() - began, 3))


def _require_sound(context: BakeContext, stack: Stack) -> None:
    """Raise CommandExecutionError as soon as the layers are those of an image that was revoked."""
    if known := context.store.revoked():
        revoked.require_sound(context.recipe.name, stack.digests, context.store.images(), known)


def make_image(context: BakeContext, stack: Stack) -> Stack:
    """Return the stack with the image of its layers: sealed, signed, tested and committed."""
    with timed() as seconds:
        for step in IMAGE:
            _require_sound(context, stack)  # a parent may be revoked while its children are baked
            stack = replace(step(context, stack), phases=dict(seconds))
    return stack


def preview(context: BakeContext, stack: Stack) -> dict[str, Any]:
    """Return what a bake would: image and digest are None if a layer would be built."""
    digest = manifest.image_digest(image_order(context, stack)) if stack.cached else None
    revoked.require_not_revoked(context.recipe.name, digest or "", context.store.revocations())
    moved = digest is None or context.store.channel(context.recipe.name, context.channel) != digest
    image = f"{context.recipe.name}@{digest[:12]}" if digest else None
    return {**stack.report(context.channel), "image": image, "digest": digest, "changed": moved}
