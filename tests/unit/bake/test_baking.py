"""What the master decides while it bakes: which layers, under which keys, with whose key. The builder is a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import bake, contents, locks, temporary_key
from saltext.immutable.bake.commands import why as command
from saltext.immutable.bake.commands.channels import Channels
from saltext.immutable.bake.commands.revoke import Revocations
from saltext.immutable.bake.context import BakeContext, silent
from saltext.immutable.bake.keys import git_remotes, layer_key
from saltext.immutable.spec.model import Definitions, Guard, Minion, Recipe, Settings, VirtualMachine
from saltext.immutable.spec.origins import Debian, Parent
from saltext.immutable.store import Held, Store

BASE = Recipe("base", Debian("bookworm"), "base-bake", Minion())
WEB = Recipe("web", Parent("base"), "web-bake", states="highstate")

GRAINS = {"os": "Debian", "master": "salt"}
"""As a minion of a layer has them before it knows its master."""


class FakeMaster:
    """What the pillar, the tree and the key list of a master are; its builder remembers what it was told."""

    def __init__(self) -> None:
        self.recipes = {"base": BASE, "web": WEB}
        self.tree = "1"
        self.files: dict[str, dict[str, str]] = {"base": {}}
        self.pillar_needs: str | None = None
        self.own_grains: dict[str, Any] = {}
        self.keys: set[str] = set()
        self.layers: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, str] = {}
        self.kept_warnings: dict[str, list[str]] = {}
        self.kept_about: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        self.private_keys: list[str] = []
        self.trace: list[list[Any]] = [["file", "base", "web/init.sls", False]]
        self.built: list[str] = []
        self.orders: list[dict[str, Any]] = []
        self.during: Callable[[], None] = lambda: None
        self.candidates: dict[str, str] = {}
        self.above: list[dict[str, Any]] = [{"path": "etc/immutable/seal.json", "sha256": "1"}]
        self.proofs: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.damaged: set[str] = set()
        self.reproducible = True
        self.remotes = git_remotes.Remotes()
        self.pinned: dict[str, dict[str, str]] = {}
        self.moved: list[str] = []
        self.old_pack = False

    @contextmanager
    def pin(self, opts: object, bake_id: str, envs: object) -> Iterator[git_remotes.Remotes]:
        self.pinned = self.files
        yield self.remotes
        self.pinned = {}

    # The builder

    def __call__(self, name: str, **kwargs: Any) -> Any:
        return getattr(self, f"do_{name}")(**kwargs)

    def do_sweep(self) -> None: ...

    def do_sources(self, **order: Any) -> list[str]:
        return []

    def do_candidates(self, order: dict[str, Any]) -> dict[str, str]:
        return self.candidates

    def do_find_layer(self, key: str) -> dict[str, Any] | None:
        found = self.layers.get(self.kept.get(key, ""))
        if found and found["digest"] in self.damaged:
            return {"digest": found["digest"], "damaged": f"layer {found['digest'][:12]} is damaged"}
        return {**found, **self.kept_about[key], "warnings": self.kept_warnings[key]} if found else None

    def do_keep_layer(self, key: str, digest: str, warnings: Sequence[str], about: dict[str, Any]) -> None:
        self.kept[key], self.kept_warnings[key], self.kept_about[key] = digest, list(warnings), about

    def do_make_key(self, bake_id: str, master_key: str) -> str:
        return "public half"

    def _layer(self, order: dict[str, Any], **about: Any) -> dict[str, Any]:
        self.built.append(order["what"])
        self.orders.append(order)
        wrong = self.damaged.intersection(order["instead_of"])
        self.damaged -= wrong
        digest = min(wrong) if wrong and self.reproducible else f"{len(self.orders):02}" * 32
        set_aside = {"damaged": "was damaged" if wrong else "", "differs_from": sorted(wrong - {digest})}
        known = {"digest": digest, "what": order["what"], "packages": {}, "grains": GRAINS}
        known |= {"seconds": 1.0, "created": 1.0, "phases": {"prepare": 0.5}, "slim": {}}
        self.layers[digest] = known | about
        return self.layers[digest] | set_aside

    def do_debian_layer(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._layer(order, packages={"bash:amd64": "1"}, private_keys=self.private_keys)

    def do_minion_layer(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._layer(order)

    def do_state_layer(self, order: dict[str, Any]) -> dict[str, Any]:
        assert order["bake_id"] in self.keys
        self.during()
        built = self._layer(order, grains={**GRAINS, **self.own_grains}, packages={"nginx:amd64": "1"}, sls=["web"])
        pinned = bool(order["pins"]) and not self.old_pack
        return {**built, "warnings": self.warnings, "trace": self.trace, "pinned": pinned}

    def do_make_image(self, order: dict[str, Any], trusted: list[str]) -> dict[str, Any]:
        digest = bake.manifest.image_digest(order)
        made = {**order, "image": digest, "created": 1.0, "above": self.above, "proof": self.proofs.get(digest)}
        return self.images.setdefault(digest, made) | {"proof": self.proofs.get(digest)}

    def do_require_image(self, digest: str, trusted: list[str]) -> str:
        if digest in self.damaged:
            raise CommandExecutionError(f"image {digest[:12]} is damaged")
        return digest

    def do_find_image(self, digest: str) -> dict[str, Any]:
        return self.images[digest]

    def do_keep_proof(self, digest: str, proof: dict[str, Any]) -> None:
        self.proofs[digest] = proof


@pytest.fixture
def master(monkeypatch) -> FakeMaster:
    fake = FakeMaster()

    class FakeMinions:
        def __init__(self, opts: object) -> None: ...

        def close(self) -> None: ...

        def known(self) -> set[str]:
            return set(fake.keys)

        def enrol(self, minion_id: str, pub: str) -> None:
            fake.keys.add(minion_id)

        def forget(self, minion_id: str) -> None:
            fake.keys.discard(minion_id)

    def of_states(opts: object, recipe: Recipe, grains: dict[str, Any], below: str, secret: bytes) -> dict[str, Any]:
        if fake.pillar_needs and fake.pillar_needs not in grains:
            raise SaltInvocationError(f"no grain {fake.pillar_needs}")
        return {"recipe": recipe.name, "tree": fake.tree, "grains": dict(grains), "below": below}

    def details(opts: object, recipe: Recipe, grains: dict[str, Any], secret: bytes) -> dict[str, Any]:
        return {"grains": dict(grains), "pillar": {"web:version": fake.tree}}

    monkeypatch.setattr(temporary_key, "Minions", FakeMinions)
    monkeypatch.setattr(temporary_key, "public_key", lambda opts: "master's public half")
    monkeypatch.setattr(layer_key, "of_states", of_states)
    monkeypatch.setattr(layer_key, "details", details)
    monkeypatch.setattr(layer_key, "tree", lambda opts, pins=None: fake.pinned if pins else fake.files)
    monkeypatch.setattr(git_remotes, "pinned", fake.pin)
    monkeypatch.setattr(git_remotes.Remotes, "moved", lambda *_: fake.moved.pop(0) if fake.moved else "")
    monkeypatch.setattr(layer_key, "of_minion", lambda minion, below: {"requirement": "salt", "below": below})
    for step in ("states", "test"):
        place = f"saltext.immutable.bake.steps.{step}.machine_config"
        monkeypatch.setattr(place, lambda opts, master: {"master": master})
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    return fake


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def baked(master, store, tmp_path):
    def run(name: str = "web", **more: Any) -> dict[str, Any]:
        master.built.clear()
        chain = tuple(Definitions(master.recipes, {}).chain(name))
        return bake.run(BakeContext({}, Settings(root=tmp_path), store, master, chain, **more))

    return run


def test_what_is_there_is_not_built_again(master, baked, store):
    first = baked()
    assert master.built == ["debian bookworm", "minion salt", "states of web"]
    second = baked()
    assert (master.built, second["cached"], second["changed"]) == ([], True, False)
    assert second["digest"] == first["digest"]
    assert [layer["phases"] for layer in second["layers"]] == [{"prepare": 0.5}] * 3, "of when it was built"
    [image] = store.images("web")
    assert list(image.report["phases"]) == ["seal", "sign", "booted tests"], "what comes after the layers"


@pytest.mark.parametrize(
    ("layer", "reproducible", "built", "said", "lost"),
    [
        pytest.param(0, True, 1, "debian bookworm is the same as before it was damaged", [], id="root, the same"),
        pytest.param(2, True, 1, "states of web is the same as before it was damaged", [], id="states, the same"),
        pytest.param(2, False, 1, "states of web differs from", ["web"], id="states, another digest"),
        pytest.param(1, False, 2, "minion salt differs from", ["shop", "web"], id="minion, another digest"),
        pytest.param(0, False, 3, "debian bookworm differs from", ["shop", "web"], id="root, another digest"),
    ],
)
def test_a_damaged_layer_is_built_again_and_the_images_that_are_lost_with_it_are_named(
    master, baked, store, layer, reproducible, built, said, lost
):
    master.recipes["shop"] = replace(WEB, name="shop", bake_id="shop-bake")
    images = {"web": baked()["image"], "shop": baked("shop")["image"]}
    digest = store.image(images["web"]).layers[layer]
    heard: list[str] = []
    master.damaged, master.reproducible = {digest}, reproducible
    assert not baked(preview=True)["cached"] and master.damaged == {digest}, "a preview only says so"
    report = baked(progress=lambda sentence, *_, **__: heard.append(sentence))
    assert len(master.built) == built and f"warning: layer {digest[:12]} is damaged" in heard
    [sentence] = [each for each in heard if said in each]
    assert all((image in sentence) == (name in lost) for name, image in images.items())
    [mended] = [each for each in report["layers"] if "damaged" in each]
    assert sorted(mended.get("unusable", ())) == [images[name] for name in lost]
    assert mended.get("differs_from", []) == ([] if reproducible else [digest])
    assert baked()["cached"] and not master.damaged


def test_the_builder_is_told_where_the_states_are_applied(master, baked):
    master.recipes["web"] = replace(WEB, bake_in="chroot")
    baked()
    assert [order["chroot"] for order in master.orders if "bake_id" in order] == [True]


@pytest.mark.parametrize("offline", [False, True])
def test_the_builder_is_told_whether_it_may_fetch(master, baked, offline):
    baked(offline=offline)
    assert [order["offline"] for order in master.orders] == [offline] * 3


def test_keys_in_any_layer_are_refused_where_the_recipe_says_so_also_when_nothing_is_built(master, baked):
    master.private_keys = ["etc/ssl/private/x.key"]
    baked()
    master.recipes["web"] = replace(WEB, private_keys="refuse")
    with pytest.raises(CommandExecutionError, match="web: the image holds private keys, .*: /etc/ssl/private/x.key"):
        baked()


def test_what_was_said_of_a_layer_is_said_again_when_it_is_found(master, baked):
    heard: list[str] = []
    master.warnings = ["/etc/x holds the value of pillar p"]
    first = baked()
    second = baked(progress=lambda sentence, *_, **__: heard.append(sentence))
    assert (first["warnings"], second["cached"], second["warnings"]) == (master.warnings, True, master.warnings)
    assert heard == ["warning: /etc/x holds the value of pillar p"]


def test_what_a_parent_marks_as_secret_is_secret_in_its_children_too(master, baked):
    master.recipes["base"] = replace(BASE, states=("common",), secrets=("tls:*:key",))
    master.recipes["web"] = replace(WEB, secrets=("db:password",))
    baked()
    of_states = [order for order in master.orders if "bake_id" in order]
    assert [order["secrets"] for order in of_states] == [["tls:*:key"], ["tls:*:key", "db:password"]]


def test_an_image_remembers_the_policy_of_its_machines(master, baked, store):
    master.recipes["base"] = replace(BASE, guard=Guard(deny=("ps.*",)))
    digest = baked()["digest"]
    assert store.image(f"web@{digest[:12]}").report["policy"]["guard"]["deny"] == ["ps.*"]


@pytest.mark.parametrize("times", [pytest.param(1, id="built"), pytest.param(2, id="found")])
def test_it_is_written_down_what_went_into_an_image(master, baked, store, times):
    master.files = {"base": {"web/init.sls": "33188 abcdef"}}
    master.trace = [["file", "base", "web/init.sls", True]]
    for _ in range(times):
        digest = baked()["digest"]
    told = contents.find(store, digest)
    assert told["packages"] == {"nginx:amd64": "1"}
    assert told["states"]["web"]["sls"] == {"web": "abcdef"}


def test_a_change_of_the_tree_builds_only_the_states(master, baked):
    baked()
    master.tree = "2"
    assert baked()["changed"]
    assert master.built == ["states of web"]


USED = {"base": {"web/init.sls": "33188 aa", "shop/init.sls": "33188 bb"}}


@pytest.mark.parametrize(
    ("path", "told", "builds"),
    [
        pytest.param("web/init.sls", "33188 cc", ["states of web"], id="a file that was asked for"),
        pytest.param("web.sls", "33188 dd", ["states of web"], id="one that was asked for and was not there"),
        pytest.param("shop/init.sls", "33188 cc", [], id="a file that nobody asked for"),
    ],
)
def test_of_the_tree_that_counts_which_the_bake_asked_for(master, baked, path, told, builds):
    master.files = USED
    master.trace = [["file", "base", "web.sls", False], ["file", "base", "web/init.sls", True]]
    first = baked()
    master.files = {"base": {**USED["base"], path: told}}
    baked()
    assert master.built == builds
    master.files = USED
    assert (baked()["digest"], master.built) == (first["digest"], []), "what was there before is found again"


@pytest.mark.parametrize("trace", [None, []])
def test_where_nobody_looked_on_every_file_counts_and_nothing_is_taken_for_stable(master, baked, trace):
    master.files, master.trace = USED, trace
    baked()
    baked()
    assert master.built == ["states of web"]
    master.recipes["web"] = replace(WEB, assume_stable=True)
    assert baked()["cached"]
    master.files = {"base": {**USED["base"], "shop/init.sls": "33188 cc"}}
    baked()
    assert master.built == ["states of web"]


def test_what_cannot_be_proven_is_built_each_time_unless_the_recipe_says_that_it_is_stable(master, baked):
    master.trace = [*master.trace, ["unproven", "state date (cmd.run) of web runs a command"]]
    baked()
    baked()
    assert master.built == ["states of web"]
    assert baked(preview=True)["layers"][-1]["cached"] is False
    master.recipes["web"] = replace(WEB, assume_stable=True)
    assert baked()["cached"]


@pytest.mark.parametrize(
    ("what", "warned"),
    [("asks the mine", True), ("asks other minions (publish.publish)", True), ("runs a command", False)],
)
def test_what_others_answered_a_recipe_that_counts_as_stable_is_told(master, baked, what, warned):
    master.recipes["web"] = replace(WEB, assume_stable=True)
    master.trace = [*master.trace, ["unproven", f"web/init.sls {what}"]]
    for report in (baked(), baked()):
        said = [each for each in report["warnings"] if "counts as unchanged (assume_stable)" in each]
        assert [f"web/init.sls {what}; bake with refresh=always" in each for each in said] == [True] * warned


def test_tests_that_run_in_the_machine_that_bakes_judge_again_when_they_change(master, baked, monkeypatch):
    test = "web/saltcheck-tests/init.tst"
    master.files = {"base": {**USED["base"], test: "33188 aa"}}
    read = layer_key.of_states
    baked()
    for tests, builds in (([], []), ([{"saltcheck": ""}], ["states of web"])):
        monkeypatch.setattr(layer_key, "of_states", lambda *each, tests=tests: {**read(*each), "tests": tests})
        baked()
        master.files = {"base": {**USED["base"], test: f"33188 {len(builds)}"}}
        baked()
        assert master.built == builds


def test_a_file_that_changes_while_it_is_used_leads_to_a_second_build(master, baked):
    def edit() -> None:
        master.files = {"base": {**USED["base"], "web/init.sls": "33188 cc"}}

    master.files, master.trace, master.during = USED, [["file", "base", "web/init.sls", True]], edit
    said: list[str] = []
    baked(progress=lambda message, *_, **__: said.append(message))
    assert master.built[-2:] == ["states of web", "states of web"]
    moved = "web: file web/init.sls (base) changed during the bake; building the layer again, 2 of 3"
    assert moved in said
    baked()
    assert master.built == [], "the second build has the key of what it was made from"


def test_a_tree_that_never_rests_fails_the_bake_and_leaves_no_key(master, baked):
    pushed = iter(range(99))

    def push() -> None:
        master.files = {"base": {**USED["base"], "web/init.sls": f"33188 {next(pushed)}"}}

    master.files, master.trace, master.during = USED, [["file", "base", "web/init.sls", True]], push
    with pytest.raises(CommandExecutionError, match=r"web/init.sls \(base\) changed during the bake, and in 3 builds"):
        baked()
    assert master.built[-4:] == ["minion salt", *["states of web"] * 3]
    master.during = lambda: None
    baked()
    assert master.built == ["states of web"]


COMMIT = {"of": "states", "url": "git+https://git.example.com/states", "ref": "main", "commit": "ab" * 20}
PILLAR = {**COMMIT, "of": "pillar"}
REMOTES = {"base": [COMMIT], "dev": [{**COMMIT, "ref": "dev"}], "": [PILLAR]}


@pytest.mark.parametrize(
    ("remotes", "old_pack", "builds", "said"),
    [
        pytest.param({"pins": {"base": "f00"}}, False, 1, "pinned to the commits that the master has now", id="pinned"),
        pytest.param({"pins": {"base": "f00"}}, True, 2, "pinned to the commits", id="an image that cannot pin"),
        pytest.param(
            {"reason": "roots"}, False, 2, "not pinned to commits (roots), so a push that changes them", id="not pinned"
        ),
    ],
)
def test_a_push_while_a_layer_is_built_counts_only_where_its_tree_is_not_pinned(
    master, baked, store, remotes, old_pack, builds, said
):
    def push() -> None:
        master.files = {"base": {**USED["base"], "web/init.sls": "33188 cc"}}

    master.files, master.during, master.old_pack = USED, push, old_pack
    master.trace = [["file", "base", "web/init.sls", True], ["given", "base", "web/init.sls", "aa"]]
    master.remotes = git_remotes.Remotes(REMOTES, **remotes)
    heard: list[str] = []
    report = baked(progress=lambda sentence, *_, **__: heard.append(sentence))
    assert master.built.count("states of web") == builds
    assert f"states of web: {said}" in " ".join(heard)
    pinned = bool(builds == 1)
    known = [{**COMMIT, "pinned": pinned}, {**PILLAR, "pinned": False}]
    assert report["layers"][-1]["git"] == known, "of the environment from which files came"
    assert store.image(report["digest"]).report["layers"][-1]["git"] == known
    dependencies = master.proofs[report["digest"]]["provenance"]["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["digest"] for each in dependencies[3:]] == [{"gitCommit": "ab" * 20}] * 2
    again = baked()
    assert (master.built, again["cached"]) == ((["states of web"], False) if pinned else ([], True))
    if pinned:
        master.during = lambda: None
        assert baked()["cached"], "what was pushed was baked, and nothing more"


def test_a_layer_that_is_found_has_the_commits_of_which_it_was_built(master, baked):
    master.remotes = git_remotes.Remotes(REMOTES, {"base": "f00"})
    first = baked()["layers"][-1]["git"]
    master.remotes = git_remotes.Remotes({"base": [{**COMMIT, "commit": "cd" * 20}]}, {"base": "f00"})
    assert baked()["layers"][-1]["git"] == first


def test_a_remote_that_moves_while_it_is_read_is_read_again(master, baked):
    master.remotes, master.moved = git_remotes.Remotes(REMOTES), ["main moved from 1 to 2"]
    heard: list[str] = []
    baked(progress=lambda sentence, *_, **__: heard.append(sentence))
    assert "web: main moved from 1 to 2 while it was read; building the layer again, 2 of 3" in heard
    assert master.built.count("states of web") == 1


@pytest.fixture
def why(master, store, tmp_path, monkeypatch):
    """Return what explains the next bake of web."""
    monkeypatch.setattr(command, "Worker", lambda *_: master)
    monkeypatch.setattr(command.Store, "open", lambda url: store)
    monkeypatch.setattr(store, "close", lambda: None)
    monkeypatch.setattr(command.spec, "settings", lambda opts: Settings(root=tmp_path))
    chain = lambda opts, name: Definitions(master.recipes, {}).chain(name)  # noqa: E731
    monkeypatch.setattr(command.baking, "recipe_chain", chain)
    return lambda **how: command.explain({}, "web", **how)


def test_why_tells_what_changed_since_the_last_bake_and_what_would_be_built(master, baked, why):
    master.files = USED
    master.trace = [["file", "base", "web/init.sls", True], ["state", "web", "/etc/a", "file.managed", "1"]]
    assert why()["changed"] == ["web: it is not known what its last bake was made from"]
    image = baked()["image"]
    told = why()
    assert (told["image"], told["changed"], told["builds"], told["unproven"]) == (image, [], [], {})
    master.files = {"base": {**USED["base"], "web/init.sls": "33188 cc", "shop/init.sls": "33188 dd"}}
    master.tree = "2"
    told = why()
    assert told["changed"] == ["web: pillar web:version changed", "web: file web/init.sls (base) changed"]
    assert told["builds"] == ["states of web"]
    assert master.built == ["debian bookworm", "minion salt", "states of web"], "it only tells"
    master.trace = [*master.trace[:1], ["state", "web", "/etc/a", "file.managed", "2"]]
    baked()
    told = why()
    assert (told["changed"], told["builds"]) == ([], [])
    assert "web: state web: /etc/a (file.managed) changed" in told["last"]


def test_why_tells_what_no_key_can_see(master, baked, why):
    master.trace = [*master.trace, ["unproven", "state date (cmd.run) of web runs a command"]]
    baked()
    told = why()
    sentence = "state date (cmd.run) of web runs a command"
    assert told["unproven"] == {"web": {"assume_stable": False, "what": [sentence]}}
    assert (told["changed"], told["builds"]) == ([], ["states of web"])


def test_why_asks_the_mirrors_if_told_to(master, baked, why):
    baked()
    master.candidates = {"nginx:amd64": "2"}
    assert why()["builds"] == []
    told = why(updates=True)
    assert told["changed"] == ["package nginx:amd64 has an update: 1 -> 2"]
    assert told["builds"] == ["states of web"]


def test_inputs_that_change_during_the_bake_leave_no_key(master, baked):
    def edit() -> None:
        master.tree += "x"

    master.during = edit
    with pytest.raises(CommandExecutionError, match="pillar web:version changed during the bake"):
        baked()
    master.during = lambda: None
    for tree in ("1", "2"):
        master.tree = tree
        baked()
        assert master.built == ["states of web"], "neither the old inputs nor the new ones led to that layer"


def test_a_pillar_that_is_another_one_each_time_is_named_after_one_build(master, baked, monkeypatch):
    read, times = layer_key.of_states, iter(range(99))
    monkeypatch.setattr(layer_key, "of_states", lambda *each: {**read(*each), "pillar": next(times)})
    with pytest.raises(CommandExecutionError, match="changes each time that it is read"):
        baked()
    assert master.built.count("states of web") == 1


def test_units_that_a_parent_does_not_start_are_not_started_for_its_children_either(master, baked):
    master.recipes["base"] = replace(master.recipes["base"], at_boot=("agent",), states=("base",))
    master.recipes["web"] = replace(master.recipes["web"], at_boot=("cron",))
    baked()
    assert [order["at_boot"] for order in master.orders if "bake_id" in order] == [["agent"], ["agent", "cron"]]


def test_a_bake_that_dies_after_building_leaves_no_key(master, baked, monkeypatch):
    real = master.do_keep_layer
    baked("base")
    monkeypatch.setattr(master, "do_keep_layer", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        baked()
    monkeypatch.setattr(master, "do_keep_layer", real)
    assert baked()["cached"] is False


def test_the_bakes_key_is_there_for_the_bake_only(master, baked):
    baked()
    assert master.keys == set()


def test_a_failed_bake_leaves_no_key_of_its_id(master, baked, store):
    master.during = lambda: (_ for _ in ()).throw(CommandExecutionError("a state failed"))
    with pytest.raises(CommandExecutionError, match="a state failed"):
        baked()
    assert (master.keys, store.enrolled()) == (set(), set())


def test_a_key_that_a_killed_bake_left_is_deleted_by_the_next_even_if_nothing_is_built(master, baked, store):
    baked()
    store.add_enrolled("web-bake")
    master.keys.add("web-bake")
    assert baked()["cached"]
    assert (master.keys, store.enrolled()) == (set(), set())


def test_the_key_of_a_real_minion_is_left_alone(master, baked):
    master.keys.add("web-bake")
    with pytest.raises(SaltInvocationError, match="bake_id: a minion called web-bake has a key"):
        baked()
    assert master.keys == {"web-bake"}


def test_a_pillar_that_wants_a_grain_of_the_trees_own_is_learned_once(master, baked):
    master.files = {"base": {"_grains/tier.py": "x"}}
    master.pillar_needs, master.own_grains = "tier", {"tier": "front"}
    baked()
    assert baked()["cached"]


def test_a_pillar_that_wants_a_grain_nobody_brings_is_an_error(master, baked):
    master.pillar_needs = "tier"
    with pytest.raises(SaltInvocationError, match="no grain tier"):
        baked()
    assert "states of web" not in master.built


def test_children_have_their_parents_grains(master, baked):
    master.recipes["shop"] = Recipe("shop", Parent("web"), "shop-bake", grains={"b": 2}, states=("shop",))
    master.recipes["web"] = Recipe("web", Parent("base"), "web-bake", grains={"a": 1}, states="highstate")
    baked("shop")
    assert [order["minion"]["grains"] for order in master.orders[-2:]] == [{"a": 1}, {"a": 1, "b": 2}]


def test_grains_without_states_are_another_image(master, baked):
    plain = baked("base")
    master.recipes["base"] = Recipe("base", Debian("bookworm"), "base-bake", Minion(), grains={"a": 1})
    with_grains = baked("base")
    assert master.built == []
    assert with_grains["digest"] != plain["digest"]


def test_a_preview_touches_nothing_and_names_what_is_missing(master, baked):
    told = baked(preview=True)
    assert [layer["what"] for layer in told["layers"] if not layer["cached"]][-1] == "states of web"
    assert (master.built, told["changed"], told["image"]) == ([], True, None)


def test_a_preview_says_when_only_the_channel_would_move(master, baked):
    first = baked()
    master.tree = "2"
    baked()
    master.tree = "1"
    told = baked(preview=True)
    assert (told["cached"], told["changed"], told["digest"]) == (True, True, first["digest"])


def test_updates_rebuild_the_layer_that_has_the_package_and_what_is_above(master, baked):
    baked()
    master.candidates = {"nginx:amd64": "2"}
    baked(refresh="updates")
    assert master.built == ["states of web"]
    master.candidates = {"bash:amd64": "2"}
    baked(refresh="updates")
    assert master.built[0] == "debian bookworm"


def test_always_builds_every_layer_anew(master, baked):
    baked()
    baked(refresh="always")
    assert master.built == ["debian bookworm", "minion salt", "states of web"]


def test_a_second_bake_of_a_recipe_is_told_who_bakes(baked, store):
    with store.lease("bake web", 3600), pytest.raises(Held, match="bake web is held by pid"):
        baked()


def test_a_parent_that_is_being_baked_is_waited_for(baked, store, monkeypatch):
    lease = store.lease("bake base", 3600)
    lease.__enter__()
    said: list[str] = []
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: lease.__exit__(None, None, None))
    baked(progress=lambda message, tag, **data: said.append(message))
    assert said[0].startswith("waiting: bake base is held by pid")


def test_no_key_of_ours_is_the_key_of_a_layer(master):
    assert layer_key.last(WEB) != layer_key.key({"kind": "last"})


# Revoked images


def test_a_bake_that_comes_to_a_revoked_image_is_refused_with_the_reason(master, baked, store):
    first = baked()
    Revocations(store, silent).revoke(first["digest"], "openssl 3.0.11")
    says = "the same inputs give the same image, .*: openssl 3.0.11; change what web is made from"
    for preview in (False, True):
        with pytest.raises(CommandExecutionError, match=says):
            baked(preview=preview)
    master.tree = "2"
    second = baked()
    assert second["changed"] and store.channel("web", "stable") == second["digest"]


def test_nothing_is_built_on_a_revoked_parent(master, baked, store):
    master.recipes["base"] = replace(BASE, states=("common",))
    parent = baked("base")
    Revocations(store, silent).revoke(parent["digest"], "openssl 3.0.11")
    with pytest.raises(CommandExecutionError, match="web would be built on base@.*openssl 3.0.11; change what base"):
        baked()
    assert master.built == []
    master.candidates = {"nginx:amd64": "2"}
    assert baked("base", refresh="updates")["changed"], "the monthly rebuild is a way out"
    assert baked()["changed"]


def test_a_bake_writes_down_who_moved_the_channel(master, baked, store):
    digest = baked(user="jane")["digest"]
    [line] = Channels(store, silent).channels("web")["history"]
    assert (line["what"], line["from"], line["to"], line["who"]) == ("bake", None, f"web@{digest[:12]}", "jane")


def test_another_kernel_of_the_builder_is_another_layer(master, baked, store):
    asked = []
    master.kernel = ["1", "2"]
    master.do_kernel_content = lambda order: asked.append(order) or master.kernel
    vm = VirtualMachine(vmlinuz="/boot/vmlinuz", initrd="/boot/initrd.img")
    master.recipes["web"] = replace(WEB, bake_in="vm", vm=vm)
    baked()
    assert asked[0] == {"vmlinuz": "/boot/vmlinuz", "initrd": "/boot/initrd.img"}
    baked()
    assert master.built == []
    master.kernel = ["1", "3"]
    baked()
    assert master.built == ["states of web"]
