"""An image of the store as what a recipe begins with: what a bake keeps of its stack, and what the next one takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Literal

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.bake import contents
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.keys import changed_inputs
from saltext.immutable.bake.stack import DERIVED, Given, Stack
from saltext.immutable.images import sign
from saltext.immutable.spec import writable_paths
from saltext.immutable.spec.model import Definitions, Recipe, Slim
from saltext.immutable.spec.origins import ParentImage
from saltext.immutable.store import Image, Store

_KEPT = (
    *("what", "digest", "key", "created", "seconds", "phases", "size", "files", "slim", "sls", "tests"),
    *("warnings", "unproven", "private_keys", "deferred", "restless", "services"),
)


def handed_down(context: BakeContext, stack: Stack) -> dict[str, Any]:
    """Return what children of the image need to know of it, beside its contents and what its digest covers."""
    slim = stack.slim_of(context.recipe)
    return {
        "layers": [{name: layer[name] for name in _KEPT if name in layer} for layer in stack.layers],
        "machine": dict(stack.top.get("grains") or {}),
        "secrets": list(stack.secrets),
        "at_boot": list(stack.at_boot),
        "slim": asdict(slim) if slim else slim,
    }


def stack(context: BakeContext, recipe: Recipe, source: ParentImage) -> Stack:
    """Return the stack of the image that ``source`` names now: all that a child has of a parent recipe, too.

    Raises CommandExecutionError where the image is revoked, failed its tests, is damaged or not signed.
    """
    try:
        image = context.store.usable(source.reference)
        trusted = sign.trusted(context.settings)
        context.builder("require_image", digest=image.digest, trusted=trusted)
    except (CommandExecutionError, SaltInvocationError) as err:
        raise type(err)(f"{recipe.name} cannot be built on {source.reference} (from: image): {err}") from err
    found = context.builder("find_image", digest=image.digest)
    made_from = _made_from(context, image)
    known = made_from["children"]
    packages = dict(made_from["packages"])
    policy = {name: value for name, value in found["policy"].items() if name not in DERIVED}
    _require_paths(context, recipe, policy)
    origin = {"image": image.name, "digest": image.digest}
    layers = [{"grains": {}, "cached": True, "parent": origin, **layer} for layer in known["layers"]]
    layers[-1] |= {"packages": packages, "grains": known["machine"]}
    return Stack(
        layers=tuple(layers),
        grains=dict(found["grains"]),
        secrets=tuple(known["secrets"]),
        at_boot=tuple(known["at_boot"]),
        origins={f"{changed_inputs.PARENT_IMAGE} {source.reference}": origin},
        state_origins=dict(made_from["states"]),
        given=Given(policy=policy, packages=packages, slim=_slim(known["slim"])),
    )


def pinned(store: Store, definitions: Definitions) -> dict[str, list[str]]:
    """Return by digest the recipes whose ``from`` names one image; what names a channel needs that image."""
    found: dict[str, list[str]] = {}
    for recipe in definitions.recipes.values():
        if isinstance(recipe.source, ParentImage) and recipe.source.follows is None:
            with suppress(SaltInvocationError):  # there is none any more
                digest = store.image(recipe.source.reference).digest
                found.setdefault(digest, []).append(f"recipe {recipe.name} (from: image)")
    return found


def _made_from(context: BakeContext, image: Image) -> Mapping[str, Any]:
    found = contents.find(context.store, image.digest) or {}
    if "children" not in found:
        raise CommandExecutionError(
            f"{image.name} was baked before images could be parents, and what its children inherit is not known; bake "
            f"{image.recipe} again"
        )
    return found


def _slim(kept: Any) -> Slim | Literal[False] | None:
    """Return settings of ``slim`` as the pillar has them, from what the store keeps of them."""
    if not kept:
        return False if kept is False else None
    return Slim(**{**kept, "locales": kept["locales"] if kept["locales"] == "keep" else tuple(kept["locales"])})


def _require_paths(context: BakeContext, recipe: Recipe, given: Mapping[str, Any]) -> None:
    """Raise SaltInvocationError where the paths of the recipes do not go with those of the image."""
    if wrong := writable_paths.wrong_on_image(spec.policy(context.chain, given), given):
        raise SaltInvocationError(f"immutable:recipes:{recipe.name}:{wrong}")
