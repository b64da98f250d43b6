"""From a recipe to an image, as seen from the master."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import salt.version
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import __version__, minions, spec
from saltext.immutable.bake import (
    builder,
    compare,
    contents,
    debian,
    garbage,
    inputs,
    lifecycle,
    manifest,
    memory,
    offline,
    phases,
    provenance,
    references,
    shell,
    slim,
    software,
    sources,
    tests,
    traces,
    trial,
    turns,
    verify,
    why,
)
from saltext.immutable.bake import refresh as refreshing
from saltext.immutable.bake.references import Tree
from saltext.immutable.bake.shortcut import Shortcut
from saltext.immutable.hosts import Doors, Worker
from saltext.immutable.machines import network
from saltext.immutable.minions import Minions, machine_config
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.store import Held, Image, Store

Say = Callable[..., None]
"""Called with a sentence, a tag and data for each step of progress."""

DOORS: Doors = {
    "sources": lambda host, **order: debian.sources(**order),
    "find_layer": builder.find_layer,
    "keep_layer": builder.keep_layer,
    "make_key": builder.make_key,
    "debian_layer": builder.debian_layer,
    "root_content": builder.root_content,
    "root_layer": builder.root_layer,
    "minion_layer": builder.minion_layer,
    "state_layer": builder.state_layer,
    "candidates": builder.candidates,
    "updates": builder.pending_updates,
    "make_image": builder.make_image,
    "keep_proof": builder.keep_proof,
    "test_image": trial.test_image,
    "verify_image": builder.verify_image,
    "require_image": verify.require,
    "find_image": builder.find_image,
    "has_image": builder.has_image,
    "software": software.software,
    "compare_images": compare.compare,
    "open_shell": shell.open_shell,
    "local_images": builder.local_images,
    "drop_image": builder.drop_image,
    "image_users": garbage.image_users,
    "collect": garbage.collect,
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
        worker = Worker(opts, settings, "image", DOORS)
        shortcut = Shortcut(store, opts, settings, name, channel)
        if wanted == "never" and (told := shortcut.answer(worker)):
            return told
        chain = recipe_chain(opts, name)
        work = _Bake(opts, settings, store, worker, wanted, test, say, user)
        work.offline = offline.wanted(cache, settings.cache, wanted != "never")
        with nullcontext() if test else turns.baking(store, name, say):
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


@dataclass
class _Bake:
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
                self.slim = slim.made_from(each.slim)
                for step in (self._source, self._minion, self._states):
                    step(each)
                    self._refuse_revoked(recipe)
        if recipe.private_keys == "refuse":
            traces.refuse_keys(recipe.name, [key for each in self.layers for key in each.get("private_keys") or ()])
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

    def _ask_mirrors(self, recipe: Recipe) -> None:
        newest = next(iter(self.store.images(recipe.name)), None)
        if newest is None:
            return
        self.say(f"asking the mirrors for updates of {newest.name}", "image/updates", recipe=recipe.name)
        self.candidates = self.builder("candidates", order={"below": list(newest.layers), **self._place()})
        self.installed = (contents.find(self.store, newest.digest) or {}).get("packages", {})

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

    def _states(self, recipe: Recipe) -> None:
        self.grains = {**self.grains, **recipe.grains}
        self.secrets = tuple(dict.fromkeys((*self.secrets, *recipe.secrets)))
        if not recipe.states:
            return
        recipe = replace(recipe, secrets=self.secrets)
        known, tree = self._grains_of(recipe), inputs.tree(self.opts)
        ground = self._ground(recipe, known, tree)
        made_from = self._found_states(recipe, ground, tree)
        before = memory.last(self.store, recipe.name) or {}
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
        asked = memory.asked(self.store, inputs.key(ground)) if ground else []
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
        known = self._known(self.layers[-2]["grains"], built["grains"])
        ground = self._read(recipe, known, below, now)
        built["unproven"] = references.doubts(before, trace)
        memory.keep_asked(self.store, recipe.name, inputs.key(ground), asked)
        for key in (inputs.key({**ground, **made_from}), inputs.last(recipe)):
            self._keep(key, built)
        self.layers[-1]["unproven"] = built["unproven"]
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
            before = memory.last(self.store, recipe)
            because = why.changes(recipe, before, told) if before else []
            if before and not because:
                because = list(before.get("because", []))
            memory.keep_last(self.store, recipe, {**told, "layers": self.inputs, "image": image, "because": because})

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
        return {**ground, "saltcheck": references.tests(tree)} if ground.get("tests") else ground

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

    @property
    def _below(self) -> str:
        return str(self.layers[-1]["digest"])

    def _place(self) -> dict[str, str]:
        return {"bridge": self.settings.network.bridge, "subnet": self.settings.network.subnet}

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
        self.layers.append(found | {"cached": True})
        return True

    def _foresee(self, what: str) -> None:
        grains = self.layers[-1]["grains"] if self.layers else {}
        self.layers.append({"what": what, "digest": "", "grains": grains, "cached": False})

    def _build(self, function: str, key: str | None, order: Mapping[str, Any]) -> dict[str, Any]:
        """Build a layer; the key of a layer of states is given by the caller, who has to look twice."""
        what = order["what"]
        order = {**order, "below": [layer["digest"] for layer in self.layers]}
        self.say(f"building the layer: {what}", "image/layer", what=what)
        order = {**order, "slim": self.slim, "offline": self.offline}
        heard = phases.heard(lambda name: self._enter(what, name))
        with offline.told(self.offline), self._enrolled(order.get("bake_id")), heard:
            built = self.builder(function, order=order)
        tests.require_inside(self.store, what.removeprefix("states of "), built.get("tests", []))
        if key is not None:
            self._keep(key, built)
        said = f"built {what} in {built['seconds']:.1f} s ({phases.told(built['phases'])})"
        self.say(said, "image/layer", what=what, digest=built["digest"], seconds=built["seconds"])
        if slimmed := slim.told(built["slim"]):
            self.say(slimmed, "image/slim", what=what, saved=built["slim"])
        self.layers.append(built | {"cached": False})
        return dict(built)

    def _enter(self, what: str, phase: str) -> None:
        self.say(f"{what}: {phase}", "image/phase", what=what, phase=phase)

    def _keep(self, key: str, built: Mapping[str, Any]) -> None:
        about = {name: built.get(name) for name in ("packages", "grains", "sls", "phases", "slim", "private_keys")}
        about["unproven"] = list(built.get("unproven", ()))
        about["tests"] = list(built.get("tests", ()))
        self.builder("keep_layer", key=key, digest=built["digest"], warnings=built.get("warnings", []), about=about)

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

    def _outdated(self, layer: Mapping[str, Any]) -> bool:
        if self.refresh == "always":
            return True
        return any(self.candidates.get(name, version) != version for name, version in layer["packages"].items())

    def _order(self, recipe: Recipe) -> dict[str, Any]:
        stack = [layer["digest"] for layer in self.layers]
        of_recipe = {"recipe": recipe.name, "read_only": recipe.read_only, "policy": self.policy}
        return {**of_recipe, "layers": stack, "grains": self.grains}

    def _commit(self, recipe: Recipe, channel: str, report: Mapping[str, Any]) -> dict[str, Any]:
        versions = {"salt": salt.version.__version__, "pack": __version__}
        order = self._order(recipe)
        lifecycle.require_not_revoked(recipe.name, manifest.image_digest(order), self.store.revocations())
        made = self.builder("make_image", order={**order, **versions})
        about = _short(report) | versions | {"policy": self.policy}
        image = Image(made["image"], recipe.name, tuple(order["layers"]), made["created"], recipe.read_only, about)
        moved = self.store.channel(recipe.name, channel) != image.digest
        where_from = provenance.document(image.name, image.digest, self._origins(), self._run(recipe, report, versions))
        provenance.vouch(self.builder, self.store, self.settings, image, made, where_from)
        contents.keep(self.store, image.digest, self._contents(order))
        results = self._tested(recipe, image)  # before it is in the books: there it would count as good
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


def master_address(settings: Settings) -> str:
    """Return where machines reach the master."""
    return settings.master or network.gateway(settings.network)


def _short(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what belongs to the layers themselves."""
    shown = ("what", "digest", "cached", "seconds", "phases", "slim", "size", "files")
    layers = [{name: layer[name] for name in shown if name in layer} for layer in report["layers"]]
    packages = len(report["layers"][-1].get("packages", {}))
    return {**report, "layers": layers, "packages": packages}
