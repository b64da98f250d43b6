"""From a recipe to an image, as seen from the master."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import salt.version
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import __version__, minions, spec
from saltext.immutable.bake import builder, debian, inputs
from saltext.immutable.hosts import Doors, Worker
from saltext.immutable.machines import network
from saltext.immutable.minions import Minions, machine_config
from saltext.immutable.spec.model import Debian, Recipe, Settings
from saltext.immutable.store import Image, Store

Say = Callable[..., None]
"""Called with a sentence, a tag and data for each step of progress."""

DOORS: Doors = {
    "sources": lambda host, **order: debian.sources(**order),
    "find_layer": builder.find_layer,
    "forget_layer": builder.forget_layer,
    "debian_layer": builder.debian_layer,
    "minion_layer": builder.minion_layer,
    "state_layer": builder.state_layer,
    "candidates": builder.candidates,
    "make_image": builder.make_image,
    "local_images": builder.local_images,
    "drop_image": builder.drop_image,
    "sweep": builder.sweep,
}
"""What `_modules/image.py` offers, for a builder that is this process."""
_LEASE = 4 * 3600.0
"""Seconds after which a bake on another master counts as dead; on this one it does so at once."""


def nothing(message: str, tag: str, **data: Any) -> None:
    """Say nothing."""


def bake(
    name: str,
    opts: Mapping[str, Any],
    *,
    refresh: bool = False,
    channel: str = "stable",
    test: bool = False,
    say: Say = nothing,
) -> dict[str, Any]:
    """Bake recipe ``name`` and make ``channel`` name the image.

    ``refresh``: layers whose packages have updates at the mirrors are built anew. ``test``: only tell which
    layers would be built. Returns image, digest, changed (whether the channel moved), cached (whether no layer was
    built), layers, channel, seconds.
    """
    settings = spec.settings(opts)
    definitions = minions.definitions(opts)
    if name not in definitions.recipes:
        known = ", ".join(sorted(definitions.recipes)) or "none"
        raise SaltInvocationError(f"immutable:recipes: there is no recipe {name!r}; the pillar has {known}")
    store = Store.open(settings.store)
    try:
        work = _Bake(opts, settings, store, Worker(opts, settings, "image", DOORS), refresh, test, say)
        return work.bake(definitions.chain(name), channel)
    finally:
        store.close()


@dataclass
class _Bake:
    opts: Mapping[str, Any]
    settings: Settings
    store: Store
    builder: Worker
    refresh: bool
    test: bool
    say: Say
    layers: list[dict[str, Any]] = field(default_factory=list)
    candidates: dict[str, str] = field(default_factory=dict)
    """Today's version of each package of the last image, when that was asked for."""

    def bake(self, chain: list[Recipe], channel: str) -> dict[str, Any]:
        began = time.monotonic()
        recipe = chain[-1]
        if not self.test:
            self.builder("sweep")
        if self.refresh:
            self._ask_mirrors(recipe)
        for each in chain:
            with self.store.lease(f"bake {each.name}", _LEASE):
                for step in (self._source, self._minion, self._states):
                    step(each)
        report = {"layers": self.layers, "seconds": round(time.monotonic() - began, 3), "channel": channel}
        report["cached"] = all(layer["cached"] for layer in self.layers)
        return report | (self._preview(report) if self.test else self._commit(recipe, channel, report))

    def _ask_mirrors(self, recipe: Recipe) -> None:
        newest = next(iter(self.store.images(recipe.name)), None)
        if newest is None:
            return
        self.say(f"asking the mirrors for updates of {newest.name}", "image/updates", recipe=recipe.name)
        self.candidates = self.builder("candidates", order={"below": list(newest.layers), **self._place()})

    def _source(self, recipe: Recipe) -> None:
        source = recipe.source
        if not isinstance(source, Debian):
            return
        order = {"suite": source.suite, "components": list(source.components), "mirror": source.mirror}
        made_from = inputs.of_debian(source, self.builder("sources", **order))
        self._layer("debian_layer", f"debian {source.suite}", made_from, {**order, "packages": list(source.packages)})

    def _minion(self, recipe: Recipe) -> None:
        if recipe.minion is None:
            return
        made_from = inputs.of_minion(recipe.minion, self._below)
        order = {"requirement": made_from["requirement"], "version": __version__, **self._place()}
        self._layer("minion_layer", f"minion {made_from['requirement']}", made_from, order)

    def _states(self, recipe: Recipe) -> None:
        if not recipe.states:
            return
        made_from = self._state_inputs(recipe)
        order = {
            "bake_id": recipe.bake_id,
            "states": made_from["states"],
            "saltenv": recipe.saltenv,
            "pillarenv": recipe.pillarenv,
            "grains": dict(recipe.grains),
            "sync": inputs.has_custom_modules(made_from),
            "minion": machine_config(self.opts, master_address(self.settings)),
            **self._place(),
        }
        if self._layer("state_layer", f"states of {recipe.name}", made_from, order, enrol=recipe.bake_id):
            self._still(recipe, made_from)

    def _state_inputs(self, recipe: Recipe) -> dict[str, Any]:
        grains = self.layers[-1]["grains"] if not self.test or self.layers[-1]["digest"] else {}
        return inputs.of_states(self.opts, recipe, grains, self._below, self.store.secret)

    def _still(self, recipe: Recipe, made_from: Mapping[str, Any]) -> None:
        """Withdraw a layer whose inputs changed while it was made: nobody can say what is in it."""
        below = self.layers.pop()
        same = self._state_inputs(recipe) == made_from
        self.layers.append(below)
        if not same:
            self.builder("forget_layer", key=inputs.key(made_from))
            raise CommandExecutionError(f"states or pillar of {recipe.name} changed during the bake; bake again")

    @property
    def _below(self) -> str:
        return str(self.layers[-1]["digest"])

    def _place(self) -> dict[str, str]:
        return {"bridge": self.settings.network.bridge, "subnet": self.settings.network.subnet}

    def _layer(
        self, function: str, what: str, made_from: Mapping[str, Any], order: Mapping[str, Any], enrol: str | None = None
    ) -> bool:
        """Put the layer with these inputs on the stack, building it if there is none; return whether it was built."""
        key = inputs.key(made_from)
        found = None if self._is_stale() else self.builder("find_layer", key=key)
        if found is not None and not self._outdated(found):
            self.layers.append(found | {"cached": True})
            return False
        if self.test:
            self.layers.append({"what": what, "digest": "", "grains": {}, "cached": False})
            return False
        self.say(f"building the layer: {what}", "image/layer", what=what)
        below = [layer["digest"] for layer in self.layers]
        with _enrolled(self.opts, enrol) as own:
            built = self.builder(function, key=key, order={**order, **own, "what": what, "below": below})
        said = f"built {what} in {built['seconds']:.1f} s"
        self.say(said, "image/layer", what=what, digest=built["digest"], seconds=built["seconds"])
        self.layers.append(built | {"cached": False})
        return True

    def _is_stale(self) -> bool:
        """In a preview nothing is known above a layer that would be built."""
        return bool(self.layers) and not self.layers[-1]["digest"]

    def _outdated(self, layer: Mapping[str, Any]) -> bool:
        return any(self.candidates.get(name, version) != version for name, version in layer["packages"].items())

    def _commit(self, recipe: Recipe, channel: str, report: Mapping[str, Any]) -> dict[str, Any]:
        stack = [layer["digest"] for layer in self.layers]
        versions = {"salt": salt.version.__version__, "pack": __version__}
        order = {"recipe": recipe.name, "layers": stack, "read_only": recipe.read_only, **versions}
        made = self.builder("make_image", order=order)
        about = _short(report) | versions
        image = Image(made["image"], recipe.name, tuple(stack), made["created"], recipe.read_only, about)
        moved = self.store.channel(recipe.name, channel) != image.digest
        self.store.add_image(image)
        self.store.set_channel(recipe.name, channel, image.digest)
        return {"image": image.name, "digest": image.digest, "changed": moved, **_short(report)}

    def _preview(self, report: Mapping[str, Any]) -> dict[str, Any]:
        return {"image": None, "digest": None, "changed": not report["cached"], "layers": _short(report)["layers"]}


def master_address(settings: Settings) -> str:
    """Return where machines reach the master."""
    return settings.master or network.gateway(settings.network)


@contextmanager
def _enrolled(opts: Mapping[str, Any], minion_id: str | None) -> Iterator[dict[str, Any]]:
    """Give the key of the id that bakes, for as long as it bakes."""
    if minion_id is None:
        yield {}
        return
    minions_ = Minions(opts)
    try:
        yield {"key": minions_.enrol(minion_id)}
    finally:
        minions_.forget(minion_id)
        minions_.close()


def _short(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what belongs to the layers themselves."""
    shown = ("what", "digest", "cached", "seconds", "size", "files")
    layers = [{name: layer[name] for name in shown if name in layer} for layer in report["layers"]]
    packages = len(report["layers"][-1].get("packages", {}))
    return {**report, "layers": layers, "packages": packages}
