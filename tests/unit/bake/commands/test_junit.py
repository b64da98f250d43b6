"""What JUnit reads of an image's tests, and of a bake that fails before them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import image_tests
from saltext.immutable.bake.commands import junit
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


def test_junit_has_a_suite_a_phase_and_says_what_failed(tmp_path):
    path = tmp_path / "web.xml"
    skipped = result("later", "skipped")
    coloured = result("boots", "\x1b[31mno\x1b[0m <unit>")
    junit.write(str(path), "web", [*BAD, skipped, coloured])
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
    image_tests.keep(store, "web", ONE, GOOD)
    with pytest.raises(CommandExecutionError), junit.reported(opts, "web", str(path)):
        raise CommandExecutionError("2 of 3 states failed")
    document = ElementTree.parse(path).getroot()
    assert document.get("errors") == "1"
    assert document[0][0].find("error").get("message") == "2 of 3 states failed"
    with junit.reported(opts, "web", str(path)):
        pass
    assert ElementTree.parse(path).getroot().get("tests") == "3"


def test_a_report_that_could_not_be_written_is_refused_before_the_bake(settings):
    opts, says = {"immutable": {"store": settings.store}}, "junit: 'web.xml' is no file in a folder"
    with pytest.raises(SaltInvocationError, match=says), junit.reported(opts, "web", "web.xml"):
        raise AssertionError("baked")
