"""Step: the layer that a recipe's states make. An earlier bake's layer is found, or a new one is built.

Which files of the tree the states use is known only after they were applied. So the key of the layer has two halves:
the *ground*, which is known before (recipe, pillar, grains, the layer below), and the tree's answers to the questions
that the bake asked. A later bake on the same ground puts the same questions to the tree of its day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import cached_layers, contents, idempotence, image_tests
from saltext.immutable.bake.context import BakeContext, machine_network, master_address
from saltext.immutable.bake.keys import changed_inputs, git_remotes, last_bake, layer_key, used_files
from saltext.immutable.bake.keys.git_remotes import Remotes
from saltext.immutable.bake.keys.used_files import Tree
from saltext.immutable.bake.stack import Stack
from saltext.immutable.minions import machine_config
from saltext.immutable.spec.model import Recipe

Inputs = Mapping[str, Any]
_NAMED = 5
"""How many changed inputs a message names."""
_ATTEMPTS = 3
"""How often a layer is built if its inputs change while it is."""


class InputsMoved(CommandExecutionError):  # type: ignore[misc]
    """Inputs of a layer changed while it was built: it is not known which of their values it has."""


@dataclass(frozen=True)
class Reading:
    """What the master has for a recipe, read before its states are applied."""

    tree: Tree
    grains: Inputs
    """Grains of the minion that bakes, as the pillar sees them."""
    ground: Inputs | None
    """None: the pillar needs a grain of the tree's own modules, which no bake has found yet."""
    damaged: Sequence[str]
    """Digests of damaged layers that earlier bakes made for the recipe: a new one takes their place."""


def states(context: BakeContext, recipe: Recipe, stack: Stack) -> Stack:
    """Return the stack with the recipe's grains, its secrets, and the layer of its states.

    Raises CommandExecutionError where a state or a test fails, or the tree or the pillar changes during the bake.
    """
    stack = stack.inherit(recipe)
    if not recipe.states:
        return stack
    recipe = replace(recipe, secrets=stack.secrets, at_boot=stack.at_boot, slim=stack.slim_of(recipe))
    reading = _read(context, recipe, stack)
    found, damaged = _find(context, recipe, stack, reading)
    if found is not None and idempotence.is_asked(context, recipe) and not context.preview:
        return idempotence.checked(
            context, recipe, found, _order(context, recipe, stack, layer_key.whole(reading.tree), {})
        )
    if found is not None:
        return found
    if context.preview:
        return _foresee(context, recipe, stack, reading)
    return _build(context, recipe, stack, replace(reading, damaged=[*reading.damaged, *damaged]))


def _read(
    context: BakeContext, recipe: Recipe, stack: Stack, pins: Mapping[str, str] = MappingProxyType({})
) -> Reading:
    last, damaged = cached_layers.look_up(context, layer_key.last(recipe))
    grains = _grains(context, stack, stack.top["grains"], last["grains"] if last else {})
    tree = layer_key.tree(context.opts, pins)
    try:
        return Reading(tree, grains, _ground(context, recipe, stack, grains, tree), damaged)
    except SaltInvocationError:
        if last is None and layer_key.has_custom_modules(tree, layer_key.GRAINS):
            return Reading(tree, grains, None, damaged)
        raise


def _find(context: BakeContext, recipe: Recipe, stack: Stack, reading: Reading) -> tuple[Stack | None, list[str]]:
    """Return the stack with the layer that an earlier bake made from the same; None if there is none.

    Also returns the digests of the damaged ones.
    """
    damaged: list[str] = []
    if reading.ground is None:
        return None, damaged
    for asked in last_bake.asked(context.store, layer_key.key(reading.ground)):
        made_from = layer_key.complete(reading.ground, reading.tree, asked)
        found, wrong = cached_layers.find(context, stack, layer_key.key(made_from), assume_stable=recipe.assume_stable)
        damaged += wrong
        if found is not None:
            before = last_bake.last(context.store, recipe.name) or {}
            more = {"asked": asked, "states": before.get("states", {}), "unproven": found.top.get("unproven")}
            return _record(context, recipe, found, reading.grains, made_from, more), damaged
    return None, damaged


def _foresee(context: BakeContext, recipe: Recipe, stack: Stack, reading: Reading) -> Stack:
    """Return the stack with a layer that would be built, and with what is known of its inputs."""
    stack = cached_layers.foresee(stack, f"states of {recipe.name}")
    before = last_bake.last(context.store, recipe.name)
    if reading.ground is None or not before:
        return stack
    more = {name: before.get(name) for name in ("asked", "states", "unproven")}
    made_from = layer_key.complete(reading.ground, reading.tree, before.get("asked"))
    return replace(stack, parts=_parts(context, recipe, stack, reading.grains, made_from, more))


def _build(context: BakeContext, recipe: Recipe, below: Stack, reading: Reading, attempt: int = 1) -> Stack:
    """Return the stack with a new layer; it is built again where its inputs change meanwhile.

    Raises `InputsMoved` where they change each time.
    """
    try:
        with git_remotes.pinned(context.opts, recipe.bake_id, _envs(recipe)) as remotes:
            return _build_once(context, recipe, below, _read_at(context, recipe, below, reading, remotes), remotes)
    except InputsMoved as err:
        if attempt == _ATTEMPTS:
            raise InputsMoved(f"{err}, and in {_ATTEMPTS} builds; bake again when nobody changes them") from err
        sentence = f"{err}; building the layer again, {attempt + 1} of {_ATTEMPTS}"
        context.progress(sentence, "image/warning", recipe=recipe.name, warning=sentence)
    return _build(context, recipe, below, _read(context, recipe, below), attempt + 1)


def _read_at(context: BakeContext, recipe: Recipe, below: Stack, reading: Reading, remotes: Remotes) -> Reading:
    """Return what the master has for a recipe at the commits of its remotes, if it has some.

    Raises `InputsMoved` where a remote moves while it is read.
    """
    if remotes == Remotes():
        return reading
    known = _read(context, recipe, below, remotes.pins)
    reading = replace(known, tree=layer_key.whole(known.tree), damaged=[*known.damaged, *reading.damaged])
    if moved := remotes.moved(context.opts, _envs(recipe)):
        raise InputsMoved(f"{recipe.name}: {moved} while it was read")
    what = f"states of {recipe.name}"
    why = f" ({remotes.reason})" if remotes.reason else ""
    how = f"not pinned to commits{why}, so a push that changes them has the layer built again"
    how = "pinned to the commits that the master has now" if remotes.pins else how
    context.progress(f"{what}: {how}", "image/phase", what=what, phase="pin")
    return reading


def _envs(recipe: Recipe) -> dict[str, str | None]:
    return {"saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}


def _build_once(context: BakeContext, recipe: Recipe, below: Stack, reading: Reading, remotes: Remotes) -> Stack:
    """Return the stack with a new layer, kept under its key if its inputs did not change while it was built."""
    tree = layer_key.whole(reading.tree)
    details = _details(context, recipe, reading.grains) if reading.ground is not None else {}
    order = _order(context, recipe, below, tree, remotes.pins)
    instead_of = sorted(set(reading.damaged))
    stack = cached_layers.build(context, recipe, below, "state_layer", {**order, "instead_of": instead_of})
    if recipe.tests.idempotent or idempotence.is_asked(context, recipe):
        stack = idempotence.checked(context, recipe, stack, order)
    trace = stack.top.get("trace") or []
    asked, unproven = used_files.asked(trace), used_files.unproven(tree, trace)
    # All inputs are read again: if one changed during the build, it is not known which of its values the layer has.
    pinned = bool(stack.top.get("pinned"))
    now = tree if pinned else layer_key.tree(context.opts)
    ground = None if reading.ground is None else _ground(context, recipe, below, reading.grains, now)
    answers = layer_key.complete({}, now, asked)
    before = layer_key.complete({}, tree, asked)
    if ground != reading.ground or answers != before:
        old = changed_inputs.parts(reading.ground or {}, details, before, {})
        new = changed_inputs.parts(
            ground or {}, _details(context, recipe, reading.grains) if details else {}, answers, {}
        )
        if ground is not None and ground != _ground(context, recipe, below, reading.grains, now):
            raise CommandExecutionError(
                f"{_moved(recipe, old, new)}, and changes each time that it is read, so no layer can be kept for it; "
                "take the clock, random numbers and fresh tokens out of the pillar"
            )
        raise InputsMoved(f"{_moved(recipe, old, new)} during the bake")
    _require_served_as_listed(tree, trace)
    # The next bake will know the grains that the tree's own modules brought to this one.
    grains = _grains(context, stack, below.top["grains"], stack.top["grains"])
    if ground is None or grains != reading.grains:
        ground = _ground(context, recipe, below, grains, now)
    made_from = {**ground, **answers}
    git = remotes.used({recipe.saltenv or "base", *used_files.environments(trace)}, pinned=pinned)
    stack = stack.amend_top(unproven=unproven, key=layer_key.key(made_from), git=git)
    last_bake.keep_asked(context.store, recipe.name, layer_key.key(ground), asked)
    for key in (layer_key.key(made_from), layer_key.last(recipe)):
        cached_layers.keep(context, key, stack.top)
    more = {"asked": asked, "states": used_files.states(trace), "unproven": unproven}
    return _record(context, recipe, stack, grains, made_from, more)


def _moved(recipe: Recipe, old: Inputs, new: Inputs) -> str:
    """Return what changed between two readings of the inputs: the first names, and how many more there are."""
    found = changed_inputs.changes(recipe.name, old, new) or [f"{recipe.name}: pillar or grains changed"]
    more = f", and {len(found) - _NAMED} more," if len(found) > _NAMED else ""
    return f"{', '.join(found[:_NAMED])}{more}"


def _require_served_as_listed(tree: Tree, trace: used_files.Trace) -> None:
    if wrong := used_files.differing(tree, trace):
        raise CommandExecutionError(
            f"{wrong[0]}: the master served another content than its file_roots have. Either the file changed during "
            "the bake, or the master runs with an older config. Bake again; if that fails too, restart salt-master"
        )


def _record(
    context: BakeContext, recipe: Recipe, stack: Stack, grains: Inputs, made_from: Inputs, more: Inputs
) -> Stack:
    """Return the stack with what its highest layer was made from: for comparing images, and for `image.why`."""
    if recipe.assume_stable and (asked := [each for each in stack.top.get("unproven") or () if " asks " in each]):
        stack = stack.amend_top(warnings=[*stack.top.get("warnings", ()), _assumed(recipe, asked)])
    origin = contents.of_states(recipe, made_from, stack.top.get("sls"))
    parts = _parts(context, recipe, stack, grains, made_from, more)
    return replace(stack, state_origins={**stack.state_origins, recipe.name: origin}, parts=parts)


def _assumed(recipe: Recipe, asked: Sequence[str]) -> str:
    """Return a warning about what others answered a bake, and may answer otherwise by now."""
    more = f", and {len(asked) - _NAMED} more" if len(asked) > _NAMED else ""
    return (
        f"what others answered the states of {recipe.name} counts as unchanged (assume_stable): "
        f"{', '.join(asked[:_NAMED])}{more}; bake with refresh=always to ask again"
    )


def _parts(
    context: BakeContext, recipe: Recipe, stack: Stack, grains: Inputs, made_from: Inputs, more: Inputs
) -> dict[str, Any]:
    """Return the parts of all recipes so far, this one's with them."""
    details = _details(context, recipe, grains)
    return {**stack.parts, recipe.name: changed_inputs.parts(made_from, details, made_from, more)}


def _details(context: BakeContext, recipe: Recipe, grains: Inputs) -> dict[str, Any]:
    """Return a hash of each grain and each value of the pillar as they are now."""
    return layer_key.details(context.opts, recipe, grains, context.store.secret)


def _ground(context: BakeContext, recipe: Recipe, below: Stack, grains: Inputs, tree: Tree) -> dict[str, Any]:
    """Return the ground as it is now.

    With the test files that judge a layer in the machine that makes it, and the content of its kernel from the builder.
    """
    ground = layer_key.of_states(context.opts, recipe, grains, below.top["digest"], context.store.secret)
    if (files := recipe.kernel_of_builder) is not None:
        ground["kernel"] = context.builder("kernel_content", order=files)
    return {**ground, "saltcheck": image_tests.files(tree)} if ground.get("tests") else ground


def _grains(context: BakeContext, stack: Stack, below: Inputs, own: Inputs) -> dict[str, Any]:
    """Return the grains of the layer below, those that the tree's own modules brought, and those of the recipes."""
    return {**below, **own, "master": master_address(context.settings), **stack.grains}


def _order(context: BakeContext, recipe: Recipe, stack: Stack, tree: Tree, pins: Mapping[str, str]) -> dict[str, Any]:
    config = machine_config(context.opts, master_address(context.settings))
    return {
        "what": f"states of {recipe.name}",
        "recipe": recipe.name,
        "keep_failed": context.keep_failed,
        "bake_id": recipe.bake_id,
        "states": recipe.states if isinstance(recipe.states, str) else list(recipe.states),
        **_envs(recipe),
        "pins": dict(pins),
        "sync": layer_key.has_custom_modules(tree),
        "chroot": recipe.bake_in == "chroot",
        "vm": asdict(recipe.vm) if recipe.bake_in == "vm" else None,
        "at_boot": list(recipe.at_boot),
        "running": stack.running,
        "bake_identity": list(recipe.bake_identity),
        "hash_key": layer_key.hash_key(context.store.secret),
        "within": recipe.bake_within,
        "secrets": list(recipe.secrets),
        "tests": image_tests.order(recipe, recipe.tests.inside),
        "grains": stack.top["grains"],
        "minion": config | ({"grains": dict(stack.grains)} if stack.grains else {}),
        **machine_network(context.settings),
    }
