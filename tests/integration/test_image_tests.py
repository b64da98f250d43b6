"""Tests of real images: inside the bake, on a machine of the image, and what becomes of an image that fails them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

PASSED = {
    "tested: it says what the pillar says",
    "tested: it is not wrong",
    "the tree's pillar is seen",
    "boots",
    "nothing is broken",
    "its minion runs",
    "its root is read-only",
}


def left(estate):
    """What a bake that failed left of itself."""
    leaks = estate.leaks()
    return {kind: leaks[kind] for kind in ("machines", "keys", "mounts", "workspaces", "cgroups") if leaks[kind]}


@pytest.fixture(scope="module")
def says(estate):
    """Return what lets the pillar say something else of ``/etc/tested``."""

    def says(word):
        estate.write_pillar("tested", {"tested": {"says": word}})

    yield says
    says("fine")


@pytest.fixture(scope="module")
def fine(estate, tmp_path_factory):
    """An image that passed, and its report."""
    path = tmp_path_factory.mktemp("reports") / "fine.xml"
    return estate.salt_run("image.bake", "tested", f"junit={path}").data, path


def test_what_was_tested_is_kept_with_the_image(estate, fine):
    baked, path = fine
    shown = estate.salt_run("image.show", "tested:stable").data
    assert shown["failed"] is None
    assert {each["name"] for each in shown["tests"]["results"] if each["passed"]} == PASSED
    assert {each["phase"] for each in shown["tests"]["results"]} == {"inside", "booted"}
    assert ElementTree.parse(path).getroot().get("tests") == str(len(PASSED))


def test_what_passed_is_not_tested_again(estate, fine):
    answer = estate.salt_run("image.bake", "tested")
    assert (answer.data["digest"], answer.data["cached"]) == (fine[0]["digest"], True)
    assert "on a machine of its own" not in answer.stderr
    assert estate.salt_run("image.tests", "tested").data["passed"] == len(PASSED)


def test_a_bake_that_fails_inside_leaves_no_image(estate, fine, says, tmp_path):
    says("wrong")
    answer = estate.salt_run("image.bake", "tested", f"junit={tmp_path / 'wrong.xml'}", check=False)
    assert not answer.ok
    assert "tested was not baked: 1 of 3 inside tests failed" in answer.stderr + answer.stdout
    assert "tested: it is not wrong: Fail: True not False" in answer.stderr + answer.stdout
    assert left(estate) == {}
    assert list(estate.salt_run("image.list", "tested").data) == [fine[0]["image"]]
    assert ElementTree.parse(tmp_path / "wrong.xml").getroot().get("failures") == "1"
    assert estate.salt_run("image.tests", "tested").data["failed"] == 1


def test_an_image_that_fails_on_its_machine_is_kept_and_goes_nowhere(estate, fine, says):
    says("broken")
    answer = estate.salt_run("image.bake", "tested", check=False)
    assert not answer.ok
    assert "is kept for inspection and is never rolled: 1 of 4 booted tests failed" in answer.stderr + answer.stdout
    assert left(estate) == {}
    listed = estate.salt_run("image.list", "tested").data
    failed = next(name for name in listed if name != fine[0]["image"])
    assert listed[failed]["failed"] == "failed its tests: nothing is broken"
    assert listed[fine[0]["image"]]["channels"] == ["stable"]
    for words in (("image.promote", failed), ("fleet.plan", "tested", f"image={failed}")):
        refused = estate.salt_run(*words, check=False)
        assert not refused.ok
        assert "failed its tests: nothing is broken" in refused.stderr + refused.stdout
