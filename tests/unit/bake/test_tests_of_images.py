"""What is kept of an image's tests, who is refused an image that failed them, and what JUnit reads."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import catalog, tests
from saltext.immutable.bake.lifecycle import Lifecycle
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
    images = Lifecycle(store, lambda *_, **__: None)
    images.promote("web@111111", "stable")
    tests.keep(store, "web", TWO, BAD, "key")
    for refused in (
        lambda: store.usable("web@222222"),
        lambda: images.promote("web@222222", "stable"),
        lambda: store.set_channel("web", "stable", TWO),
    ):
        with pytest.raises(CommandExecutionError, match="web@222222222222 failed its tests: serves"):
            refused()
    tests.keep(store, "web", TWO, GOOD, "key")
    assert images.promote("web@222222", "stable")["changed"]


def test_a_channel_never_goes_back_to_an_image_that_failed(store):
    images = Lifecycle(store, lambda *_, **__: None)
    for digits in ("111111", "222222"):
        images.promote(f"web@{digits}", "stable")
    tests.keep(store, "web", ONE, BAD)
    with pytest.raises(SaltInvocationError, match="named no image before that is there and not revoked"):
        images.rollback("web", "stable")


def test_what_failed_can_be_revoked_as_well_and_deleted(store):
    tests.keep(store, "web", TWO, BAD)
    assert store.revocations() == {}
    assert Lifecycle(store, lambda *_, **__: None).revoke("web@222222", "openssl")["changed"]
    assert "openssl" in str(store.revoked()[TWO])
    store.delete_image(TWO)
    assert tests.of_image(store, TWO) is None


def test_only_the_same_tests_that_passed_need_not_run_again(store):
    tests.keep(store, "web", ONE, GOOD, "these")
    assert tests.passed(store, ONE, "these") == GOOD
    assert tests.passed(store, ONE, "others") is None
    tests.keep(store, "web", ONE, BAD, "these")
    assert tests.passed(store, ONE, "these") is None


def test_a_list_and_an_image_say_what_failed(store, settings):
    tests.keep(store, "web", TWO, BAD)
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
        tests.require_inside(store, "web", wrong)
    assert "web was not baked: 1 of 1 inside tests failed:\n  config: Fail: 1 is not equal to 2" in str(err.value)
    assert tests.find(store, "web") == {"name": "web", "passed": 0, "failed": 1, "results": wrong}
    assert store.revoked() == {}
    tests.keep(store, "web", ONE, GOOD)
    assert tests.find(store, "web")["failed"] == 0
    assert tests.find(store, "web@111111")["results"] == GOOD


def test_junit_has_a_suite_a_phase_and_says_what_failed(tmp_path):
    path = tmp_path / "web.xml"
    skipped = result("later", "skipped")
    coloured = result("boots", "\x1b[31mno\x1b[0m <unit>")
    tests.write_junit(str(path), "web", [*BAD, skipped, coloured])
    document = ElementTree.parse(path).getroot()
    counts = {name: document.get(name) for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "5", "failures": "2", "skipped": "1", "errors": "0"}
    assert [suite.get("name") for suite in document] == ["web inside", "web booted"]
    said = {case.get("name"): case for case in document[1]}
    assert said["serves"].get("classname") == "web.booted"
    assert said["serves"].find("failure").get("message") == "Fail: 404 is not equal to 200"
    assert said["boots"].find("failure").get("message") == "[31mno[0m <unit>"


def test_a_bake_that_fails_before_its_tests_is_an_error_for_junit(store, settings, tmp_path):
    path, opts = tmp_path / "web.xml", {"immutable": {"store": settings.store}}
    tests.keep(store, "web", ONE, GOOD)
    with pytest.raises(CommandExecutionError), tests.reported(opts, "web", str(path)):
        raise CommandExecutionError("2 of 3 states failed")
    document = ElementTree.parse(path).getroot()
    assert document.get("errors") == "1"
    assert document[0][0].find("error").get("message") == "2 of 3 states failed"
    with tests.reported(opts, "web", str(path)):
        pass
    assert ElementTree.parse(path).getroot().get("tests") == "3"


def test_a_report_that_could_not_be_written_is_refused_before_the_bake(settings):
    opts, says = {"immutable": {"store": settings.store}}, "junit: 'web.xml' is no file in a folder"
    with pytest.raises(SaltInvocationError, match=says), tests.reported(opts, "web", "web.xml"):
        raise AssertionError("baked")
