"""Tests of images as saltcheck runs them, on a minion without a master."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ECHO = {"module_and_function": "test.echo", "args": ["hi"], "assertion": "assertEqual"}


@pytest.fixture(scope="module")
def minion(tmp_path_factory):
    """A minion's config, its tree, and what runs the module with it as an image's machine does."""
    home = tmp_path_factory.mktemp("minion")
    tree, pillar = home / "states", home / "pillar"
    (tree / "web/saltcheck-tests").mkdir(parents=True)
    pillar.mkdir()
    (pillar / "top.sls").write_text("base: {'*': [web]}\n")
    (pillar / "web.sls").write_text("web: {version: '2'}\n")
    (tree / "top.sls").write_text("base: {'*': [web, bare]}\n")
    (tree / "bare.sls").write_text("include: [web]\n")
    (tree / "web/init.sls").write_text("nothing: {test.nop: []}\n")
    (tree / "web/saltcheck-tests/init.tst").write_text(
        "version:\n  module_and_function: test.echo\n  args: ['2']\n  assertion: assertEqual\n"
        "  expected_return: '{{ pillar['web']['version'] }}'\n"
        "later:\n  skip: true\n  module_and_function: test.ping\n  assertion: assertTrue\n"
    )
    (tree / "odd").mkdir()
    (tree / "odd/init.sls").write_text("nothing: {test.nope: [}\n")
    config = {
        "id": "web-bake",
        "file_client": "local",
        "master_type": "disable",
        "root_dir": str(home / "root"),
        "log_level": "critical",
    }
    config |= {"file_roots": {"base": [str(tree)]}, "pillar_roots": {"base": [str(pillar)]}}
    (home / "minion").write_text(json.dumps(config))

    def run(*tests, states="highstate"):
        order = {"tests": tests, "states": states, "saltenv": "base", "pillarenv": None}
        script = "import sys; from saltext.immutable.builder.image_tests import saltcheck; saltcheck.main(sys.argv[1])"
        words = [sys.executable, "-c", script, str(home / "minion")]
        done = subprocess.run(words, input=json.dumps(order), capture_output=True, text=True, check=False, timeout=60)
        assert not done.returncode, done.stderr
        return {each["name"]: each for each in json.loads(done.stdout.splitlines()[-1])}

    return run


def single(name, **check):
    return {"name": name, "sls": None, "check": check}


def of(sls):
    return {"name": f"saltcheck {sls}".strip(), "sls": sls, "check": {}}


def test_each_answer_is_judged_and_told(minion):
    found = minion(
        single("same", **ECHO, expected_return="hi"),
        single("other", **ECHO, expected_return="ho"),
        single(
            "pillar", module_and_function="pillar.keys", args=["web"], assertion="assertIn", expected_return="version"
        ),
        single("unknown", module_and_function="nginx.fly", assertion="assertTrue"),
        single("raises", module_and_function="test.exception", args=["no"], assertion="assertTrue"),
        single(
            "groups",
            module_and_function="grains.item",
            args=["id"],
            assertions=[
                {"assertion": "assertNotEmpty"},
                {"assertion": "assertEqual", "assertion_section": "id", "expected_return": "3"},
            ],
        ),
    )
    assert {name for name, each in found.items() if each["passed"]} == {"same", "pillar"}
    assert list(found) == ["same", "other", "pillar", "unknown", "raises", "groups"]
    said = {name: each["message"] for name, each in found.items()}
    assert said["other"] == "Fail: ho is not equal to hi"
    assert "check that the function nginx.fly exists" in said["unknown"]
    assert said["raises"].endswith("no")
    assert said["groups"] == "Fail: 3 is not equal to web-bake"


def test_files_of_saltcheck_are_found_by_state_and_run_once(minion):
    keys = {"module_and_function": "pillar.keys", "args": ["web"], "assertion": "assertIn"}
    keys["expected_return"] = "version"
    found = minion(of(""), of("nowhere"), of("odd"), single("its pillar is still seen", **keys), states="highstate")
    assert {name: each["passed"] for name, each in found.items()} == {
        "web: version": True,
        "web: later": True,
        "its pillar is still seen": True,
        "saltcheck nowhere": False,
        "saltcheck odd": False,
    }
    assert found["web: later"]["message"] == "skipped"
    assert "there is no file of tests for nowhere" in found["saltcheck nowhere"]["message"]
