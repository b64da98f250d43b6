"""From a recipe to an image, as seen from the master."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import salt.version
from salt.exceptions import SaltInvocationError

from saltext.immutable import __version__, minions, spec
from saltext.immutable.bake import contents, lifecycle, locks, provenance, sources, tests
from saltext.immutable.bake import refresh as refreshing
from saltext.immutable.bake.keys import inputs
from saltext.immutable.bake.keys.up_to_date import Shortcut
from saltext.immutable.bake.states import StateWork
from saltext.immutable.bake.work import Say, master_address, nothing
from saltext.immutable.builder import offline
from saltext.immutable.builder.finish import leftovers, slim
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.builder.phases import phase, timed
from saltext.immutable.images import manifest
from saltext.immutable.minions import machine_config
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Image, Store
from saltext.immutable.worker import Worker


def bake(
    name: str,
    opts: Mapping[str, Any],
    *,
    refresh: bool | str = False,
    channel: str = "stable",
    test: bool = False,
    say: Say = nothing,
    user: str | None = None,
    cache: str | None = None,
) -> dict[str, Any]:
    """Bake recipe ``name`` and make ``channel`` name the image.

    ``refresh``: with ``updates`` layers whose packages have updates at the mirrors are built anew, with ``always`` all.
    ``test``: only tell which layers would be built. ``cache``: ``only`` fetches nothing.

    Returns image, digest, changed (whether the channel moved), cached (whether no layer was
    built), layers, channel, seconds, and warnings: a sentence for each file that holds a secret of the pillar.
    """
    settings, wanted = spec.settings(opts), refreshing.wanted(refresh)
    store = Store.open(settings.store)
    try:
        worker = Worker(opts, settings, "image", LOCAL)
        shortcut = Shortcut(store, opts, settings, name, channel)
        if wanted == "never" and (told := shortcut.answer(worker)):
            return told
        chain = recipe_chain(opts, name)
        work = Bake(opts, settings, store, worker, wanted, test, say, user)
        work.offline = offline.is_offline(cache, settings.cache, wanted != "never")
        with nullcontext() if test else locks.baking(store, name, say):
            told = work.bake(chain, channel)
        if not test:
            work.keep_told(told["image"])
            shortcut.keep(chain, work.layers, told["digest"])
        return told
    finally:
        store.close()


def recipe_chain(opts: Mapping[str, Any], name: str) -> list[Recipe]:
    """Return the recipes that ``name`` is built from, the root first."""
    definitions = minions.definitions(opts)
    if name not in definitions.recipes:
        known = ", ".join(sorted(definitions.recipes)) or "none"
        raise SaltInvocationError(f"immutable:recipes: there is no recipe {name!r}; the pillar has {known}")
    return definitions.chain(name)


class Bake(StateWork):
    """One bake, from its recipes to its image."""

    def bake(self, chain: list[Recipe], channel: str) -> dict[str, Any]:
        began = time.monotonic()
        recipe, self.policy = chain[-1], spec.policy(chain)
        if not self.test:
            self.builder("sweep")
        if self.refresh == "updates":
            self._ask_mirrors(recipe)
        for each in chain:
            with self._alone(each, wait=each is not recipe):
                self._let_go(each)
                self.slim = slim.settings(each.slim)
                for step in (self._source, self._minion, self._states):
                    step(each)
                    self._refuse_revoked(recipe)
        if recipe.private_keys == "refuse":
            leftovers.refuse_keys(recipe.name, [key for each in self.layers for key in each.get("private_keys") or ()])
        seconds = round(time.monotonic() - began, 3)
        report: dict[str, Any] = {"layers": self.layers, "seconds": seconds, "channel": channel}
        report["cached"] = all(layer["cached"] for layer in self.layers)
        report["warnings"] = [warning for layer in self.layers for warning in layer.get("warnings", ())]
        for warning in report["warnings"]:
            self.say(f"warning: {warning}", "image/warning", recipe=recipe.name, warning=warning)
        return report | (self._preview if self.test else self._commit)(recipe, channel, report)

    def _refuse_revoked(self, recipe: Recipe) -> None:
        """Raise as soon as what is baked stands on an image that was revoked."""
        if revoked := self.store.revoked():
            stack = [layer["digest"] for layer in self.layers]
            lifecycle.require_sound(recipe.name, stack, self.store.images(), revoked)

    def _source(self, recipe: Recipe) -> None:
        root = sources.root(recipe.source, self.builder)
        if root is not None:
            made_from = {**root.inputs, "slim": self.slim}
            self.inputs[root.order["what"]] = made_from
            self._layer(root.function, inputs.key(made_from), root.order)

    def _minion(self, recipe: Recipe) -> None:
        if recipe.minion is None:
            return
        made_from = {**inputs.of_minion(recipe.minion, self._below), "slim": self.slim}
        requirement = made_from["requirement"]
        order = {"what": f"minion {requirement}", "requirement": requirement, "version": __version__, **self._place()}
        self.inputs[order["what"]] = made_from
        self._layer("minion_layer", inputs.key(made_from), order)

    def _order(self, recipe: Recipe) -> dict[str, Any]:
        stack = [layer["digest"] for layer in self.layers]
        of_recipe = {"recipe": recipe.name, "read_only": recipe.read_only, "policy": self.policy}
        return {**of_recipe, "layers": stack, "grains": self.grains}

    def _commit(self, recipe: Recipe, channel: str, report: Mapping[str, Any]) -> dict[str, Any]:
        versions = {"salt": salt.version.__version__, "pack": __version__}
        order = self._order(recipe)
        lifecycle.require_not_revoked(recipe.name, manifest.image_digest(order), self.store.revocations())
        with timed() as took:
            with phase("seal"):
                made = self.builder("make_image", order={**order, **versions})
            about = _short(report) | versions | {"policy": self.policy}
            image = Image(made["image"], recipe.name, tuple(order["layers"]), made["created"], recipe.read_only, about)
            moved = self.store.channel(recipe.name, channel) != image.digest
            with phase("sign"):
                run = self._run(recipe, report, versions)
                where_from = provenance.document(image.name, image.digest, self._origins(), run)
                provenance.vouch(self.builder, self.store, self.settings, image, made, where_from)
            contents.keep(self.store, image.digest, self._contents(order))
            with phase("booted tests"):
                results = self._tested(recipe, image)  # before it is in the books: there it would count as good
        image = replace(image, report={**about, "phases": dict(took)})
        self.store.add_image(image)
        tests.require(image.name, results)
        self.store.set_channel(recipe.name, channel, image.digest, who=self.user)
        return {"image": image.name, "digest": image.digest, "changed": moved, **_short(report)}

    def _tested(self, recipe: Recipe, image: Image) -> list[dict[str, Any]]:
        """Return what came of the image's tests; those on a machine of it are run unless it passed the same before."""
        served = inputs.tree(self.opts) if tests.are_files(recipe) else {}
        by = tests.key(tests.order(recipe, recipe.tests.booted), self.made_from, tests.files(served))
        found = tests.passed(self.store, image.digest, by)
        if found is None:
            found = [result for layer in self.layers for result in layer.get("tests", ())]
            found += self._on_a_machine(recipe, image) if recipe.tests.booted else []
        tests.keep(self.store, recipe.name, image.digest, found, by)
        return found

    def _on_a_machine(self, recipe: Recipe, image: Image) -> list[dict[str, Any]]:
        self.say(f"testing {image.name} on a machine of its own", "image/testing", image=image.name)
        order = {
            "image": image.digest,
            "bake_id": recipe.bake_id,
            "minion": machine_config(self.opts, master_address(self.settings)),
            "within": recipe.bake_within,
            "secrets": list(self.secrets),
            "tests": tests.order(recipe, recipe.tests.booted),
            **self._place(),
        }
        with self._alone(recipe, wait=True):
            self._let_go(recipe)
            with self._enrolled(recipe.bake_id):
                return [dict(each) for each in self.builder("test_image", order=order)]

    def _origins(self) -> list[dict[str, Any]]:
        """Return the layers, each with what it was made from."""
        origins = self.inputs | {f"states of {name}": made_from for name, made_from in self.made_from.items()}
        return [{**layer, "inputs": origins.get(layer["what"])} for layer in self.layers]

    def _run(self, recipe: Recipe, report: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
        """Return by whom, where, when and how it was baked."""
        finished = time.time()
        times = {"started": finished - report["seconds"], "finished": finished}
        builder = self.settings.builder or socket.gethostname()
        own = {"builder": builder, "who": self.user, "refresh": self.refresh, "grains": self.grains}
        return {"recipe": recipe.name, "policy": self.policy, "versions": versions, **own, **times}

    def _contents(self, order: Mapping[str, Any]) -> dict[str, Any]:
        size = sum(layer.get("size", 0) for layer in self.layers)
        return {
            "packages": self.layers[-1]["packages"],
            "states": self.made_from,
            "grains": order["grains"],
            "size": size,
            "files": sum(layer.get("files", 0) for layer in self.layers),
        }

    def _preview(self, recipe: Recipe, channel: str, report: Mapping[str, Any]) -> dict[str, Any]:
        digest = manifest.image_digest(self._order(recipe)) if report["cached"] else None
        lifecycle.require_not_revoked(recipe.name, digest or "", self.store.revocations())
        image = f"{recipe.name}@{digest[:12]}" if digest else None
        moved = digest is None or self.store.channel(recipe.name, channel) != digest
        return {"image": image, "digest": digest, "changed": moved, "layers": _short(report)["layers"]}


def _short(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what belongs to the layers themselves."""
    shown = ("what", "digest", "cached", "seconds", "phases", "slim", "size", "files")
    layers = [{name: layer[name] for name in shown if name in layer} for layer in report["layers"]]
    packages = len(report["layers"][-1].get("packages", {}))
    return {**report, "layers": layers, "packages": packages}
