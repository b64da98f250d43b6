"""After a lost store, ``fleet.adopt_store`` reads the images of the builder: machines are repaired without a bake."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import signatures
from saltext.immutable.fleet import lost_images, lost_store
from saltext.immutable.fleet.show import proposal
from saltext.immutable.images import manifest, sign, verify
from saltext.immutable.spec.model import Definitions, ImageTest, Recipe, RecipeTests, Settings
from saltext.immutable.spec.origins import Debian
from saltext.immutable.store import Image

from .estates import Estate
from .test_stories import Steady

RECIPE = Recipe("web", Debian("bookworm"), "web-bake")


class BuilderFake:
    """The images of a builder, signed as a bake signs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.images, self.damaged = settings, dict[str, dict[str, Any]](), set[str]()

    def bake(self, layer: str, created: float) -> str:
        order = {"recipe": "web", "layers": [layer * 64], "read_only": True, "grains": {}, "policy": {}}
        digest = manifest.image_digest(order)
        more = {"order": order, "created": created}
        statement = verify.statement(f"web@{digest[:12]}", digest, [], None, more)
        proof = {"signature": sign.sign(statement, sign.key(self.settings)), "provenance": None}
        self.images[digest] = {**order, "image": digest, "created": created, "above": [], "proof": proof}
        return digest

    def __call__(self, name: str, digest: str = "", trusted: object = ()) -> Any:
        if name == "local_images":
            return copy.deepcopy(self.images)
        if name == "require_image" and digest in self.damaged:
            raise CommandExecutionError(f"layer of {digest[:12]} is damaged")
        return copy.deepcopy(self.images[digest]) if name == "find_image" else digest

    @property
    def access(self) -> lost_images.Builder:
        return lost_images.Builder(self, sign.trusted(self.settings))


@pytest.fixture
def builder(tmp_path) -> BuilderFake:
    made = BuilderFake(Settings(root=tmp_path))
    sign.write_public(made.settings)
    return made


@pytest.fixture
def lost(estate, builder) -> tuple[Estate, list[str]]:
    """A fleet that was rolled to two images, and whose store was lost then; and a third image, that nobody rolled."""
    made = estate(Steady(), size=3, minion_id="web-{token}")
    empty = made.back_up()
    images = [builder.bake(layer, float(number)) for number, layer in enumerate("abc")]
    for image in images[:2]:
        made.publish(image)
        made.operations().roll("web")
    made.lose_store(empty, "f" * 16)
    return made, images


def operations(made: Estate, recipe: Recipe = RECIPE) -> Any:
    found = made.operations()
    found.definitions = Definitions({"web": recipe}, {"web": made.fleet})
    return found


def adopted(made: Estate, builder: BuilderFake, recipe: Recipe = RECIPE, test: bool = False) -> dict[str, Any]:
    return lost_store.adopt(operations(made, recipe), "all", test=test, builder=builder.access)


def test_a_dry_run_says_what_would_be_written(lost, builder):
    made, (first, second, third) = lost
    foreseen = adopted(made, builder, test=True)
    assert {one["digest"] for one in foreseen["images"] if one["written"]} == {first, second, third}
    assert foreseen["channels"] == {"web:stable": f"web@{second[:12]}"}, "what the machines run"
    assert made.store.images() == [] and made.store.channel("web", "stable") is None and made.ledger.lineage() == []
    assert made.store.installation == "f" * 16
    assert adopted(made, builder) == {**foreseen, "result": True}
    assert made.store.channel("web", "stable") == second
    assert {one["written"] for one in adopted(made, builder)["images"]} == set(), "once"


def test_a_dead_machine_is_repaired_and_there_is_a_way_back_without_a_bake(lost, builder):
    made, (first, second, _) = lost
    adopted(made, builder)
    dead = min(made.world.machines)
    del made.world.machines[dead]
    operations(made).repair("web")
    assert made.running() == [second] * 3 and dead not in made.world.machines
    assert operations(made).roll("web") is None
    assert proposal.propose(operations(made), "web")["verdict"] == "done"
    operations(made).rollback("web")
    assert made.running() == [first] * 3
    made.assert_in_order(known_only=True)


def test_an_image_keeps_its_proof_and_the_time_of_its_bake(lost, builder):
    made, (first, *_) = lost
    builder.images[first]["created"] = 99.0
    adopted(made, builder)
    image = made.store.image(first)
    assert (image.created, image.layers, image.read_only) == (0.0, ("a" * 64,), True), "as it was signed"
    assert signatures.require(made.store, image, sign.trusted(builder.settings)) is None


@pytest.mark.parametrize("wrong", ["damaged", "unsigned", "another's proof", "not its digest", "an untrusted key"])
def test_an_image_that_does_not_verify_is_named_and_left_out(lost, builder, tmp_path, wrong):
    made, (first, second, third) = lost
    if wrong == "damaged":
        builder.damaged.add(third)
    elif wrong == "unsigned":
        builder.images[third]["proof"] = None
    elif wrong == "another's proof":
        builder.images[third]["proof"] = builder.images[second]["proof"]
    elif wrong == "not its digest":
        builder.images[third]["grains"] = {"roles": ["root"]}
    else:
        stranger = BuilderFake(Settings(root=tmp_path / "stranger"))
        (tmp_path / "stranger").mkdir()
        builder.images[third]["proof"] = stranger.images[stranger.bake("c", 2.0)]["proof"]
    said = {one["digest"]: one for one in adopted(made, builder)["images"]}
    assert said[third]["written"] is False and said[third]["reason"] and said[third]["image"] == f"web@{third[:12]}"
    assert {one.digest for one in made.store.images()} == {first, second}


def test_where_results_of_tests_are_lost_only_what_machines_run_is_good(lost, builder):
    made, (_, second, third) = lost
    tested = replace(RECIPE, tests=RecipeTests(booted=(ImageTest("it serves"),)))
    said = {one["digest"]: one["reason"] for one in adopted(made, builder, tested)["images"]}
    assert said[second] == "" and "results of its tests are lost" in said[third]
    assert adopted(made, builder, tested)["channels"] == {}
    assert made.store.channel("web", "stable") == second and len(made.ledger.lineage()) == 1


def test_without_machines_the_channel_names_the_newest(lost, builder):
    made, (*_, third) = lost
    made.world.machines.clear()
    assert adopted(made, builder)["channels"] == {"web:stable": f"web@{third[:12]}"}


def test_a_store_that_went_back_gets_what_it_does_not_know(estate, builder):
    made = estate(Steady(), size=3, minion_id="web-{token}")
    first, second = (builder.bake(layer, made.world.clock() + number) for number, layer in enumerate("ab"))
    made.publish(first)
    made.operations().roll("web")
    before = made.back_up()
    made.publish(second)
    made.operations().roll("web")
    made.put_back(before)
    found = adopted(made, builder)
    assert [one["digest"] for one in found["images"]] == [second] and list(found["channels"]) == ["web:stable"]
    running = set(made.world.machines)
    operations(made).roll("web")
    assert set(made.world.machines) == running and made.running() == [second] * 3
    assert made.store.channel("web", "stable") == second and made.ledger.lineage() == [1, 2]
    made.store.set_channel("web", "stable", first)
    assert adopted(made, builder)["channels"] == {}, "a channel that somebody moved stays"


def test_only_images_of_a_fleet_that_is_named_are_read(lost, builder):
    made, _ = lost
    made.store.add_image(Image("9" * 64, "other", ("9" * 64,), 0.0, True, {}))
    builder.images["8" * 64] = {"recipe": "other", "layers": []}
    found = lost_store.adopt(operations(made), "web", test=True, builder=builder.access)
    assert all(one["image"].startswith("web@") for one in found["images"])


def test_of_what_the_image_was_made_its_layers_are_known_again():
    layer = {"name": "states of web", "digest": {"sha256": "a" * 64}, "annotations": {"seconds": 2.0}}
    commit = {"name": "states of main", "uri": "git+https://git.example.com", "digest": {"gitCommit": "b" * 40}}
    made = {"proof": {"provenance": {"predicate": {"buildDefinition": {"resolvedDependencies": [layer, commit]}}}}}
    known = {"what": "states of web", "digest": "a" * 64, "seconds": 2.0}
    assert lost_images._report(made) == {"layers": [known], "warnings": []}
