"""A key is never too small: whatever can change a layer gives it another key. Salt itself compiles and lists here."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.config
from salt.exceptions import SaltInvocationError

from saltext.immutable.bake.keys import changed_inputs, layer_key
from saltext.immutable.spec.model import Minion, Recipe, RecipeTests
from saltext.immutable.spec.origins import Debian, Parent

RECIPE = Recipe("web", Parent("base"), bake_id="web-bake", states="highstate")
TREE = {
    "states/top.sls": "base: {'*': [web]}",
    "states/web/init.sls": "/etc/motd: {file.managed: [{source: 'salt://web/motd'}]}",
    "states/web/motd": "hello",
    "dev/web/motd": "hello, developer",
    "pillar/top.sls": "base: {'web-*': [web], 'G@roles:shop': [{match: compound}, shop], 'oscodename:trixie': "
    "[{match: grain}, newer]}",
    "pillar/web.sls": "password: secret\nsince: 2026-11-23",
    "pillar/shop.sls": "shop: true",
    "pillar/newer.sls": "newer: true",
}


class World:
    """A master's files, and the key of a layer of states as they are now."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name, text in TREE.items():
            self.write(name, text)
        opts = salt.config.master_config(None)
        self.opts = {
            **opts,
            "root_dir": str(place / "root"),
            "cachedir": str(place / "cache"),
            "pki_dir": str(place / "pki"),
            "extension_modules": str(place / "extmods"),
            "file_roots": {"base": [str(place / "states")], "dev": [str(place / "dev")]},
            "pillar_roots": {"base": [str(place / "pillar")]},
            "id": "m_master",
            "grains": {},
        }
        self.recipe, self.grains, self.below = RECIPE, {"os": "Debian", "oscodename": "bookworm"}, "b" * 64
        self.secret = b"s"
        self.asked: list[list[Any]] | None = None
        """What the bake asked the master for; None: nobody knows."""

    def write(self, name: str, text: str) -> None:
        file = self.place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def made_from(self) -> dict[str, Any]:
        opts = copy.deepcopy(self.opts)
        ground = layer_key.of_states(opts, self.recipe, self.grains, self.below, self.secret)
        return layer_key.complete(ground, layer_key.tree(opts), self.asked)

    def key(self) -> str:
        return layer_key.key(self.made_from())


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_each_setting_that_is_in_the_key_can_be_named_as_changed(world):
    tests = RecipeTests(idempotent=True)
    world.recipe = replace(world.recipe, at_boot=("x",), bake_identity=("/etc/x",), tests=tests)
    ground = layer_key.of_states(world.opts, world.recipe, world.grains, world.below, world.secret)
    added_later = {"saltcheck", "kernel"}
    assert set(ground) - {"below", "grains", "kind", "pillar", "tops"} == set(changed_inputs.SETTINGS) - added_later


def test_the_same_inputs_have_the_same_key(world):
    assert world.key() == world.key()


def test_touching_a_file_changes_nothing(world):
    before = world.key()
    (world.place / "states/web/motd").touch()
    world.write("states/web/motd", "hello")
    assert world.key() == before


def of_recipe(**changes: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.recipe = replace(world.recipe, **changes)

    return change


def with_states(world: World) -> None:
    world.recipe = replace(world.recipe, states=("web",))


def written(name: str, text: str) -> Callable[[World], None]:
    return lambda world: world.write(name, text)


def written_as_old(world: World) -> None:
    """Change a file as a checkout or an archive may that gives it the time of the one before."""
    file = world.place / "states/web/motd"
    stat = file.stat()
    file.write_text("HELLO")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(written_as_old, id="a file that looks as old and as long"),
        pytest.param(lambda world: world.opts.update(nodegroups={"a": "L@b"}), id="groups that a top file may name"),
        pytest.param(lambda world: world.opts.update(state_auto_order=False), id="the order of states"),
        pytest.param(written("pillar/web.sls", "password: other"), id="a value of the pillar"),
        pytest.param(written("pillar/top.sls", "base: {'*': [shop]}"), id="who gets which pillar"),
        pytest.param(written("states/web/init.sls", "/etc/motd: file.absent"), id="a state"),
        pytest.param(written("states/web/motd", "goodbye"), id="a file that a state installs"),
        pytest.param(written("states/web/new", ""), id="a file more, within Salt's 20 s of remembering the list"),
        pytest.param(lambda world: (world.place / "states/web/motd").unlink(), id="a file less"),
        pytest.param(written("states/_modules/mine.py", "x = 1"), id="a custom module"),
        pytest.param(written("dev/web/motd", "bye"), id="a file of another environment, which a state may name"),
        pytest.param(lambda world: (world.place / "states/web/motd").chmod(0o755), id="the mode that a state may keep"),
        pytest.param(lambda world: (world.place / "states/web/empty").mkdir(), id="an empty folder"),
        pytest.param(lambda world: (world.place / "states/web/link").symlink_to("motd"), id="a link"),
        pytest.param(lambda world: (world.place / "states/web/link").symlink_to("-"), id="a link that leads nowhere"),
        pytest.param(lambda world: world.opts.update(state_top="other.sls"), id="which file is the top file"),
        pytest.param(lambda world: world.grains.update(num_cpus=8), id="a grain of the layer below"),
        pytest.param(of_recipe(grains={"roles": ["shop"]}), id="a grain of the recipe"),
        pytest.param(of_recipe(bake_id="web-bake2"), id="the id that globs see"),
        pytest.param(of_recipe(saltenv="dev"), id="the environment of the states"),
        pytest.param(of_recipe(pillarenv="base"), id="the environment of the pillar"),
        pytest.param(with_states, id="a list of states in place of the top file"),
        pytest.param(lambda world: setattr(world, "below", "c" * 64), id="the layer below"),
        pytest.param(
            lambda world: setattr(world, "grains", {"os": "Debian", "oscodename": "trixie"}),
            id="a grain of the layer below that the pillar's top file asks for",
        ),
    ],
)
def test_changes_the_key(world, change):
    before = world.key()
    change(world)
    assert world.key() != before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(of_recipe(read_only=False), id="what only the machine cares about"),
        pytest.param(written("pillar/shop.sls", "shop: false"), id="pillar that others get"),
    ],
)
def test_keeps_the_key(world, change):
    before = world.key()
    change(world)
    assert world.key() == before


def test_the_pillar_itself_is_not_in_the_inputs(world):
    assert "secret" not in str(world.made_from())


def test_the_pillars_hash_needs_the_installations_secret(world):
    before = world.key()
    world.secret = b"t"
    assert world.key() != before


@pytest.fixture
def unlogged():
    """What Salt logs at error level it would say again after pytest's last line."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("unlogged")
def test_a_pillar_that_does_not_compile_stops_everything(world):
    world.write("pillar/web.sls", "a: {")
    with pytest.raises(SaltInvocationError, match="the pillar of web-bake does not compile"):
        world.key()


@pytest.mark.parametrize(
    ("path", "custom"),
    [
        ("_modules/mine.py", True),
        ("_grains/mine.py", True),
        ("_states/mine.py", True),
        ("web/_modules.sls", False),
        ("web/init.sls", False),
    ],
)
def test_custom_modules_are_seen(path, custom):
    assert layer_key.has_custom_modules({"base": {path: "hash"}, "dev": {}}) is custom


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Debian("trixie", ("python3",)), id="suite"),
        pytest.param(Debian("bookworm", ("python3", "nginx")), id="package"),
        pytest.param(Debian("bookworm", ("python3",), ("main", "contrib")), id="component"),
    ],
)
def test_a_debian_root_depends_on_its(other):
    sources = (Debian("bookworm", ("python3",)), other)
    keys = {layer_key.key(layer_key.of_debian(source, ["deb x"])) for source in sources}
    assert len(keys) == 2


def test_a_debian_root_depends_on_its_mirrors_but_not_on_the_order_of_its_packages():
    one, two = Debian("bookworm", ("a", "b")), Debian("bookworm", ("b", "a"))
    assert layer_key.of_debian(one, ["deb x"]) == layer_key.of_debian(two, ["deb x"])
    assert layer_key.of_debian(one, ["deb x"]) != layer_key.of_debian(one, ["deb y"])


def test_the_bare_word_salt_means_the_masters_version(monkeypatch):
    monkeypatch.setattr("salt.version.__version__", "3009.1")
    assert layer_key.requirement(Minion()) == "salt==3009.1"
    assert layer_key.requirement(Minion("salt==3007.1")) == "salt==3007.1"
