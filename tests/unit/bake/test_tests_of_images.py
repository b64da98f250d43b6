"""What is kept of an image's tests, and who is refused an image that failed them."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import image_tests
from saltext.immutable.bake.commands import catalog
from saltext.immutable.bake.commands.channels import Channels
from saltext.immutable.bake.commands.revoke import Revocations
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store

ONE, TWO = "1" * 64, "2" * 64


def result(name, message="", phase="booted"):
    passed = message in ("", "skipped")
    return {"name": name, "phase": phase, "recipe": "web", "passed": passed, "seconds": 0.25, "message": message}


GOOD = [result("config", phase="inside"), result("boots"), result("serves")]
BAD = [result("config", phase="inside"), result("boots"), result("serves", "Fail: 404 is not equal to 200")]


@pytest.fixture
def settings(tmp_path):
    return Settings(store=f"sqlite:///{tmp_path}/store.sqlite")


@pytest.fixture
def store(settings):
    store = Store.open(settings.store)
    for digest in (ONE, TWO):
        store.add_image(Image(digest, "web", (digest,), 1.0, True, {}))
    yield store
    store.close()


def test_an_image_that_failed_goes_nowhere_until_it_passes(store):
    images = Channels(store, lambda *_, **__: None)
    images.promote("web@111111", "stable")
    image_tests.keep(store, "web", TWO, BAD, "key")
    for refused in (
        lambda: store.usable("web@222222"),
        lambda: images.promote("web@222222", "stable"),
        lambda: store.set_channel("web", "stable", TWO),
    ):
        with pytest.raises(CommandExecutionError, match="web@222222222222 failed its tests: serves"):
            refused()
    image_tests.keep(store, "web", TWO, GOOD, "key")
    assert images.promote("web@222222", "stable")["changed"]


def test_a_channel_never_goes_back_to_an_image_that_failed(store):
    images = Channels(store, lambda *_, **__: None)
    for digits in ("111111", "222222"):
        images.promote(f"web@{digits}", "stable")
    image_tests.keep(store, "web", ONE, BAD)
    with pytest.raises(SaltInvocationError, match="named no image before that is there and not revoked"):
        images.rollback("web", "stable")


def test_what_failed_can_be_revoked_as_well_and_deleted(store):
    image_tests.keep(store, "web", TWO, BAD)
    assert store.revocations() == {}
    assert Revocations(store, lambda *_, **__: None).revoke("web@222222", "openssl")["changed"]
    assert "openssl" in str(store.revoked()[TWO])
    store.delete_image(TWO)
    assert image_tests.of_image(store, TWO) is None


def test_only_the_same_tests_that_passed_need_not_run_again(store):
    image_tests.keep(store, "web", ONE, GOOD, "these")
    assert image_tests.passed(store, ONE, "these") == GOOD
    assert image_tests.passed(store, ONE, "others") is None
    image_tests.keep(store, "web", ONE, BAD, "these")
    assert image_tests.passed(store, ONE, "these") is None


def test_a_list_and_an_image_say_what_failed(store, settings):
    image_tests.keep(store, "web", TWO, BAD)
    shown = catalog.show(settings, "web@222222")
    assert shown["failed"] == "failed its tests: serves"
    assert (shown["tests"]["passed"], shown["tests"]["failed"]) == (2, 1)
    listed = catalog.table(settings, "web", 2.0)
    assert {name: row["failed"] for name, row in listed.items()} == {
        "web@111111111111": None,
        "web@222222222222": "failed its tests: serves",
    }


def test_a_bake_without_an_image_is_remembered_until_the_next_one(store):
    wrong = [result("config", "Fail: 1 is not equal to 2", "inside")]
    with pytest.raises(CommandExecutionError) as err:
        image_tests.require_inside(store, "web", wrong)
    assert "web was not baked: 1 of 1 inside tests failed:\n  config: Fail: 1 is not equal to 2" in str(err.value)
    assert image_tests.find(store, "web") == {"name": "web", "passed": 0, "failed": 1, "results": wrong}
    assert store.revoked() == {}
    image_tests.keep(store, "web", ONE, GOOD)
    assert image_tests.find(store, "web")["failed"] == 0
    assert image_tests.find(store, "web@111111")["results"] == GOOD
