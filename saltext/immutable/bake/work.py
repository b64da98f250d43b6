"""A bake at work: its stack of layers, each found by its key or built, one bake of a recipe at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.bake import contents, tests
from saltext.immutable.bake import refresh as refreshing
from saltext.immutable.builder import offline, phases
from saltext.immutable.builder.finish import slim
from saltext.immutable.machines import network
from saltext.immutable.minions import Minions
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.store import Held, Store
from saltext.immutable.worker import Worker

Say = Callable[..., None]
"""Called with a sentence, a tag and data for each step of progress."""
_LEASE = 4 * 3600.0
"""Seconds after which a bake on another master counts as dead; on this one it does so at once."""


def nothing(message: str, tag: str, **data: Any) -> None:
    """Say nothing."""


def master_address(settings: Settings) -> str:
    """Return where machines reach the master."""
    return settings.master or network.gateway(settings.network)


def place(settings: Settings) -> dict[str, str]:
    """Return the network that machines of a builder are on, as its orders have it."""
    return {"bridge": settings.network.bridge, "subnet": settings.network.subnet}


@dataclass
class Work:
    """What every step of one bake needs to know."""

    opts: Mapping[str, Any]
    settings: Settings
    store: Store
    builder: Worker
    refresh: refreshing.Refresh
    test: bool
    say: Say
    user: str | None = None
    layers: list[dict[str, Any]] = field(default_factory=list)
    grains: dict[str, Any] = field(default_factory=dict)
    """Of the recipes so far: a child has those of its parents, and its own."""
    secrets: tuple[str, ...] = ()
    """Likewise."""
    policy: dict[str, Any] = field(default_factory=dict)
    made_from: dict[str, Any] = field(default_factory=dict)
    """By recipe: what its layer of states was made from, for comparing images."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Likewise of the other layers, by what they are called."""
    slim: dict[str, Any] | None = None
    """What is dropped from the layers of the recipe that is at work."""
    offline: bool = False
    """Nothing may be fetched."""
    candidates: dict[str, str] = field(default_factory=dict)
    """Today's version of each package of the last image, when that was asked for."""
    installed: dict[str, str] = field(default_factory=dict)
    """Likewise the version that it has."""
    told: dict[str, Any] = field(default_factory=dict)
    """By recipe: the parts of what its layer of states is made from."""

    @contextmanager
    def _alone(self, recipe: Recipe, wait: bool) -> Iterator[None]:
        """Be the only one who bakes this recipe; a parent is waited for, as its layers are what we need."""
        with ExitStack() as held:
            told = False
            while True:
                try:
                    held.enter_context(self.store.lease(f"bake {recipe.name}", _LEASE))
                    break
                except Held as err:
                    if not wait:
                        raise
                    if not told:
                        self.say(f"waiting: {err}", "image/waiting", recipe=recipe.name)
                    told = True
                    time.sleep(1)
            yield

    @contextmanager
    def _enrolled(self, bake_id: str | None) -> Iterator[None]:
        """Have the builder's key accepted for the id that bakes, for as long as it bakes."""
        if bake_id is None:
            yield
            return
        with closing(Minions(self.opts)) as salt:
            if bake_id in salt.known():
                raise SaltInvocationError(
                    f"bake_id: a minion called {bake_id} has a key on this master; choose an id that no minion has"
                )
            self.store.note_enrolled(bake_id)
            try:
                salt.enrol(bake_id, self.builder("make_key", bake_id=bake_id))
                yield
            finally:
                salt.forget(bake_id)
                self.store.note_forgotten(bake_id)

    def _let_go(self, recipe: Recipe) -> None:
        """Delete the key that a killed bake of this recipe left."""
        if recipe.bake_id in self.store.enrolled():
            with closing(Minions(self.opts)) as salt:
                salt.forget(recipe.bake_id)
            self.store.note_forgotten(recipe.bake_id)

    def _ask_mirrors(self, recipe: Recipe) -> None:
        newest = next(iter(self.store.images(recipe.name)), None)
        if newest is None:
            return
        self.say(f"asking the mirrors for updates of {newest.name}", "image/updates", recipe=recipe.name)
        self.candidates = self.builder("candidates", order={"below": list(newest.layers), **self._place()})
        self.installed = (contents.find(self.store, newest.digest) or {}).get("packages", {})

    @property
    def _below(self) -> str:
        return str(self.layers[-1]["digest"])

    def _place(self) -> dict[str, str]:
        return place(self.settings)

    def _layer(self, function: str, key: str, order: Mapping[str, Any]) -> None:
        """Put the layer that ``key`` leads to on the stack, or build one."""
        if self._found(key):
            return
        if self.test:
            self._foresee(order["what"])
        else:
            self._build(function, key, order)

    def _found(self, key: str, stable: bool = False) -> bool:
        """Put the layer that ``key`` leads to on the stack, if there is one that may still be used.

        ``stable``: what no key can see counts as unchanged.
        """
        below = [layer["digest"] for layer in self.layers]
        # In a preview nothing is known above a layer that would be built.
        found = self.builder("find_layer", key=key) if all(below) else None
        if found is None or self._outdated(found) or (found.get("unproven") and not stable):
            return False
        self.layers.append(found | {"cached": True, "key": key})
        return True

    def _outdated(self, layer: Mapping[str, Any]) -> bool:
        if self.refresh == "always":
            return True
        return any(self.candidates.get(name, version) != version for name, version in layer["packages"].items())

    def _foresee(self, what: str) -> None:
        grains = self.layers[-1]["grains"] if self.layers else {}
        self.layers.append({"what": what, "digest": "", "grains": grains, "cached": False})

    def _build(self, function: str, key: str | None, order: Mapping[str, Any]) -> dict[str, Any]:
        """Build a layer; the key of a layer of states is given by the caller, who has to look twice."""
        what = order["what"]
        order = {**order, "below": [layer["digest"] for layer in self.layers]}
        self.say(f"building the layer: {what}", "image/layer", what=what)
        order = {**order, "slim": self.slim, "offline": self.offline}
        heard = phases.report_to(lambda name: self._enter(what, name))
        with offline.explain_missing(self.offline), self._enrolled(order.get("bake_id")), heard:
            built = self.builder(function, order=order)
        tests.require_inside(self.store, what.removeprefix("states of "), built.get("tests", []))
        if key is not None:
            self._keep(key, built)
        said = f"built {what} in {built['seconds']:.1f} s ({phases.summary(built['phases'])})"
        self.say(said, "image/layer", what=what, digest=built["digest"], seconds=built["seconds"])
        if slimmed := slim.summary(built["slim"]):
            self.say(slimmed, "image/slim", what=what, saved=built["slim"])
        self.layers.append(built | {"cached": False, "key": key})
        return dict(built)

    def _enter(self, what: str, phase: str) -> None:
        self.say(f"{what}: {phase}", "image/phase", what=what, phase=phase)

    def _keep(self, key: str, built: Mapping[str, Any]) -> None:
        about = {name: built.get(name) for name in ("packages", "grains", "sls", "phases", "slim", "private_keys")}
        about["unproven"] = list(built.get("unproven", ()))
        about["tests"] = list(built.get("tests", ()))
        self.builder("keep_layer", key=key, digest=built["digest"], warnings=built.get("warnings", []), about=about)
