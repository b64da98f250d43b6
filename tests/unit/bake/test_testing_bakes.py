"""When a bake tests its image, and what it leaves where that fails. The builder is a fake."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

from dataclasses import replace

import pytest
from salt.exceptions import CommandExecutionError
from test_baking import WEB, FakeMaster, baked, master, store  # noqa: F401

from saltext.immutable.bake import image_tests
from saltext.immutable.spec.model import ImageTest, RecipeTests, VirtualMachine
from saltext.immutable.spec.origins import Parent

UP = ImageTest("up", check={"module_and_function": "service.status", "args": ["nginx"], "assertion": "assertTrue"})
FILES = ImageTest("saltcheck", sls="")


def answer(message="", phase="booted"):
    return {"name": "up", "phase": phase, "recipe": "web", "passed": not message, "seconds": 1.0, "message": message}


@pytest.fixture
def tested(master, monkeypatch):
    """The machines of the master, whose tests say what the test wants; remembers the images that were tested."""
    tested = []

    def test_image(order):
        assert "web-bake" in master.keys
        tested.append(order["image"])
        return [answer(master.says)]

    master.says = ""
    master.do_test_image = test_image
    master.recipes["web"] = replace(WEB, tests=RecipeTests(booted=(UP,)))
    return tested


def test_an_image_is_tested_once_and_again_when_its_tests_change(master, tested, baked, store):
    first = baked()
    assert tested == [first["digest"]]
    assert baked()["cached"] and len(tested) == 1
    master.recipes["web"] = replace(WEB, tests=RecipeTests(booted=(replace(UP, name="still up"),)))
    assert baked()["digest"] == first["digest"]
    assert len(tested) == 2
    assert image_tests.of_image(store, first["digest"]) == [answer()]
    assert master.keys == set()


def test_the_files_of_saltcheck_are_part_of_the_tests(master, tested, baked):
    master.recipes["web"] = replace(WEB, tests=RecipeTests(booted=(FILES,)))
    file = "web/saltcheck-tests/init.tst"
    for told in ("0644 one", "0644 one", "0644 two"):
        master.files = {"base": {file: told}}
        baked()
    assert len(tested) == 2


def test_an_image_that_fails_is_in_the_books_and_in_no_channel(master, tested, baked, store):
    master.says = "Fail: False not True"
    for _ in range(2):  # no cache answers for it
        with pytest.raises(CommandExecutionError, match="never rolled: 1 of 1 booted tests failed:\n  up: Fail: False"):
            baked()
    assert len(tested) == 2
    (image,) = store.images("web")
    assert store.channel("web", "stable") is None
    assert store.revoked()[image.digest].reason == "failed its tests: up"
    assert master.keys == set() and store.enrolled() == set()
    master.says = ""
    assert baked()["digest"] == image.digest == store.channel("web", "stable")
    assert store.revoked() == {}


def test_nothing_is_baked_on_an_image_that_failed(master, tested, baked, store):
    master.says = "Fail"
    with pytest.raises(CommandExecutionError):
        baked()
    master.recipes["shop"] = replace(WEB, name="shop", source=Parent("web"), bake_id="shop-bake")
    with pytest.raises(
        CommandExecutionError, match="shop would be built on web@.*image.bake web, which tests it again"
    ):
        baked("shop")


def test_a_failure_inside_leaves_neither_layer_nor_image(master, baked, store):
    master.recipes["web"] = replace(WEB, tests=RecipeTests(inside=(UP,)))
    build = master.do_state_layer
    master.do_state_layer = lambda order: {"tests": [answer("Fail: no", "inside")]}
    with pytest.raises(CommandExecutionError, match="web was not baked: 1 of 1 inside tests failed"):
        baked()
    assert store.images("web") == []
    assert image_tests.of_recipe(store, "web") == [answer("Fail: no", "inside")]
    master.do_state_layer = lambda order: build(order) | {"tests": [answer(phase="inside")]}
    image = baked()
    assert image_tests.of_image(store, image["digest"]) == [answer(phase="inside")]
    master.do_state_layer = build  # what is known of the layer is kept with its key
    assert baked()["cached"]
    assert image_tests.of_image(store, image["digest"]) == [answer(phase="inside")]


def test_a_preview_tests_nothing(master, tested, baked):
    assert baked(preview=True)["digest"] is None
    assert tested == []


def test_tests_of_the_disk_run_after_those_that_passed_and_count_when_they_change(master, tested, baked, store):
    disks = []
    master.do_test_disk = lambda order: disks.append(order["vm"]["memory"]) or [answer(master.disk_says, phase="vm")]
    master.says, master.disk_says = "it is down", ""
    master.recipes["web"] = replace(WEB, tests=RecipeTests(booted=(UP,), vm=(UP,)))
    with pytest.raises(CommandExecutionError, match="1 of 1 booted tests failed"):
        baked()
    assert disks == []
    master.says = ""
    digest = baked()["digest"]
    assert [each["phase"] for each in image_tests.of_image(store, digest)] == ["booted", "vm"]
    assert baked()["cached"] and len(disks) == 1
    more_memory, of_disk = {"vm": VirtualMachine(2 << 30)}, {"tests": RecipeTests(vm=(UP, UP))}
    for changes in (more_memory, {"tests": RecipeTests(booted=(UP, UP))}, of_disk):
        master.recipes["web"] = replace(master.recipes["web"], **changes)
        baked()
    assert disks == [1 << 30, 2 << 30, 2 << 30]
    master.disk_says = "it is down"
    master.recipes["web"] = replace(WEB, tests=RecipeTests(vm=(UP,)))
    with pytest.raises(CommandExecutionError, match="1 of 1 vm tests failed"):
        baked()
