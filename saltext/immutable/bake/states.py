"""The layer that a recipe's states make, as seen from the master: the one that is there, or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import contents, tests
from saltext.immutable.bake.keys import inputs, last_bake, references, why
from saltext.immutable.bake.keys.references import Tree
from saltext.immutable.bake.work import Work, master_address
from saltext.immutable.minions import machine_config
from saltext.immutable.spec.model import Recipe


class StateWork(Work):
    """A bake whose recipes have states."""

    def _states(self, recipe: Recipe) -> None:
        self.grains = {**self.grains, **recipe.grains}
        self.secrets = tuple(dict.fromkeys((*self.secrets, *recipe.secrets)))
        if not recipe.states:
            return
        recipe = replace(recipe, secrets=self.secrets)
        known, tree = self._grains_of(recipe), inputs.tree(self.opts)
        ground = self._ground(recipe, known, tree)
        made_from = self._found_states(recipe, ground, tree)
        before = last_bake.last(self.store, recipe.name) or {}
        if made_from is not None:
            self._remember(recipe, made_from, self.layers[-1])
            more = {name: self.layers[-1].get(name) for name in ("asked", "states", "unproven")}
            self._tell(recipe, known, made_from, {**more, "states": before.get("states", {})})
        elif self.test:
            self._foresee(f"states of {recipe.name}")
            if ground is not None and before:
                more = {name: before.get(name) for name in ("asked", "states", "unproven")}
                self._tell(recipe, known, inputs.complete(ground, tree, before.get("asked")), more)
        else:
            self._build_states(recipe, ground, known, inputs.whole(tree))

    def _found_states(self, recipe: Recipe, ground: Mapping[str, Any] | None, tree: Tree) -> dict[str, Any] | None:
        """Put the layer on the stack that an earlier bake made from what is there now; return what that is."""
        asked = last_bake.asked(self.store, inputs.key(ground)) if ground else []
        for questions in asked:
            made_from = inputs.complete(ground or {}, tree, questions)
            if self._found(inputs.key(made_from), recipe.assume_stable):
                self.layers[-1]["asked"] = questions
                return dict(made_from)
        return None

    def _build_states(
        self, recipe: Recipe, ground: Mapping[str, Any] | None, known: Mapping[str, Any], before: Tree
    ) -> None:
        below = self._below
        built = self._build("state_layer", None, self._state_order(recipe, before))
        trace = built.pop("trace", None) or []
        asked = references.asked(trace)
        # What was read before is read again: nobody could say what is in a layer whose inputs changed meanwhile.
        now = inputs.tree(self.opts)
        again = self._read(recipe, known, below, now) if ground else None
        made_from = inputs.complete({}, now, asked)
        if again != ground or made_from != inputs.complete({}, before, asked):
            raise CommandExecutionError(f"states or pillar of {recipe.name} changed during the bake; bake again")
        if wrong := references.otherwise(before, trace):
            raise CommandExecutionError(
                f"the master gave {wrong[0]} otherwise than it lies in its file_roots: it changed meanwhile, or the "
                "master runs with an older config; then restart salt-master, and bake again"
            )
        before_it, known = known, self._known(self.layers[-2]["grains"], built["grains"])
        ground = again if again and known == before_it else self._read(recipe, known, below, now)
        built["unproven"] = references.doubts(before, trace)
        last_bake.keep_asked(self.store, recipe.name, inputs.key(ground), asked)
        for key in (inputs.key({**ground, **made_from}), inputs.last(recipe)):
            self._keep(key, built)
        self.layers[-1] |= {"unproven": built["unproven"], "key": inputs.key({**ground, **made_from})}
        self._remember(recipe, {**ground, **made_from}, built)
        more = {"asked": asked, "states": references.states(trace), "unproven": built["unproven"]}
        self._tell(recipe, known, {**ground, **made_from}, more)

    def _tell(
        self, recipe: Recipe, known: Mapping[str, Any], made_from: Mapping[str, Any], more: Mapping[str, Any]
    ) -> None:
        """Note for `image.why` what the states of a recipe are made from."""
        details = inputs.details(self.opts, recipe, known, self.store.secret)
        self.told[recipe.name] = why.parts(made_from, details, made_from, more)

    def keep_told(self, image: str) -> None:
        """Write down what each recipe was made from, and what of that was not so at the bake before."""
        for recipe, told in self.told.items():
            before = last_bake.last(self.store, recipe)
            because = why.changes(recipe, before, told) if before else []
            if before and not because:
                because = list(before.get("because", []))
            last_bake.keep_last(self.store, recipe, {**told, "layers": self.inputs, "image": image, "because": because})

    def _remember(self, recipe: Recipe, made_from: Mapping[str, Any], layer: Mapping[str, Any]) -> None:
        self.made_from[recipe.name] = contents.of_states(recipe, made_from, layer.get("sls"))

    def _grains_of(self, recipe: Recipe) -> dict[str, Any]:
        """Return the grains for the pillar: those of the tree's own modules as they were last time."""
        last = self.builder("find_layer", key=inputs.last(recipe))
        return self._known(self.layers[-1]["grains"], last["grains"] if last else {})

    def _known(self, below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the grains below, with those that the tree's own modules brought and what is ours to say."""
        return {**below, **own, "master": master_address(self.settings), **self.grains}

    def _ground(self, recipe: Recipe, known: Mapping[str, Any], tree: Tree) -> dict[str, Any] | None:
        """Return the inputs but for the tree; None while its pillar wants a grain of the tree itself not known yet."""
        try:
            return self._read(recipe, known, self._below, tree)
        except SaltInvocationError:
            first = self.builder("find_layer", key=inputs.last(recipe)) is None
            if first and inputs.has_custom_modules(tree, inputs.GRAINS):
                return None
            raise

    def _read(self, recipe: Recipe, known: Mapping[str, Any], below: str, tree: Tree) -> dict[str, Any]:
        """Return the inputs but for the tree, and what judges a layer in the machine that makes it."""
        ground = inputs.of_states(self.opts, recipe, known, below, self.store.secret)
        return {**ground, "saltcheck": tests.files(tree)} if ground.get("tests") else ground

    def _state_order(self, recipe: Recipe, tree: Tree) -> dict[str, Any]:
        config = machine_config(self.opts, master_address(self.settings))
        return {
            "what": f"states of {recipe.name}",
            "bake_id": recipe.bake_id,
            "states": recipe.states if isinstance(recipe.states, str) else list(recipe.states),
            "saltenv": recipe.saltenv,
            "pillarenv": recipe.pillarenv,
            "sync": inputs.has_custom_modules(tree),
            "chroot": recipe.bake_in == "chroot",
            "hash_key": inputs.hash_key(self.store.secret),
            "within": recipe.bake_within,
            "secrets": list(recipe.secrets),
            "tests": tests.order(recipe, recipe.tests.inside),
            "grains": self.layers[-1]["grains"],
            "minion": config | ({"grains": self.grains} if self.grains else {}),
            **self._place(),
        }
