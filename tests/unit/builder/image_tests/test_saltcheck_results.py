"""Which tests of an image run in parallel, and how saltcheck's answers are evaluated. No test is run."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from saltext.immutable.builder.image_tests import saltcheck

READ = {"module_and_function": "service.status", "args": ["nginx"]}
CHANGE = {"module_and_function": "saltcheck.state_apply", "args": ["web.visitors"]}


def order(*tests, states=("web",)):
    return {"tests": list(tests), "states": states, "saltenv": "base"}


def test(name, check):
    return {"name": name, "sls": None, "check": check}


test.__test__ = False


def load(folder):
    """Do what Salt does while it loads: make a folder that another process may just have made."""
    if not folder.exists():
        time.sleep(0.3)
        folder.mkdir()


@pytest.mark.parametrize("others", [1, 3])
def test_the_first_process_makes_the_folders_of_salt_alone(tmp_path, monkeypatch, others):
    context = multiprocessing.get_context("fork")
    turn, loaded = context.Lock(), context.Event()
    monkeypatch.setattr(saltcheck, "start_salt", load)
    started = [
        context.Process(target=saltcheck.start_in_turn, args=(tmp_path / "cache", turn, loaded))
        for _ in range(1 + others)
    ]
    for each in started:
        each.start()
    for each in started:
        each.join()
    assert [each.exitcode for each in started] == [0] * (1 + others)
    assert loaded.is_set()


class Runs:
    """Records the groups that run in parallel. ``files``: the tests of each SLS."""

    def __init__(self, files=None):
        self.groups, self.files = [], files or {}

    def __call__(self, function, each):
        if function is saltcheck._suite:
            return [self.files.get(sls, ([], "")) for _, sls in each]
        if function is saltcheck._applied:
            return [[("base", "web"), ("base", "users")]]
        self.groups.append([test["name"] for test in each])
        return [saltcheck._result(test["name"], True, 0.1, "") for test in each]


def test_a_test_that_changes_something_runs_alone_and_in_order():
    runs = Runs()
    tests = [test("a", READ), test("b", READ), test("c", CHANGE), test("d", CHANGE), test("e", READ), test("f", READ)]
    found = saltcheck.results(order(*tests), runs)
    assert runs.groups == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert [each["name"] for each in found] == list("abcdef")


@pytest.mark.parametrize(
    ("check", "reads"),
    [
        (READ, True),
        ({"module_and_function": "service.restart", "args": ["nginx"]}, False),
        ({"module_and_function": "cmd.run", "args": ["true"]}, False),
        ({"module_and_function": ["test.ping"]}, False),
        ({}, False),
    ],
)
def test_only_functions_of_the_guards_read_class_count_as_reading(check, reads):
    assert saltcheck.only_reads(check) is reads


def test_files_run_once_and_a_missing_file_is_a_failure():
    files = {"web": ([test("web: up", READ)], ""), "users": ([test("web: up", READ), test("users: ids", READ)], "")}
    everything = {"name": "saltcheck", "sls": "", "check": {}}
    runs = Runs(files)
    assert [each["passed"] for each in saltcheck.results(order(everything), runs)] == [True, True]
    assert runs.groups == [["web: up", "users: ids"]]
    (none,) = saltcheck.results(order(everything), Runs())
    assert not none["passed"]
    assert "there is no file of tests for web, users" in none["message"]


def test_a_file_that_cannot_be_read_is_a_failure_among_others():
    files = {"web": ([test("web: up", READ)], ""), "users": ([], "users: SaltRenderError: line 3")}
    found = saltcheck.results(order({"name": "saltcheck", "sls": "", "check": {}}), Runs(files))
    assert [(each["passed"], each["message"]) for each in found] == [
        (False, "users: SaltRenderError: line 3"),
        (True, ""),
    ]


@pytest.mark.parametrize(
    ("verdict", "passed", "message"),
    [
        ({"status": "Pass", "duration": 0.1}, True, ""),
        ({"status": "Skip", "duration": 0.0}, True, "skipped"),
        ({"status": "Fail: a is not equal to b"}, False, "Fail: a is not equal to b"),
        ({"status": "Fail - invalid test"}, False, "check that the function nginx.fly exists"),
        ({"assertion1": {"status": "Pass"}, "assertion2": {"status": "Fail: x"}, "status": "Fail"}, False, "Fail: x"),
        ("Test argument must be a dictionary", False, "Test argument must be a dictionary"),
    ],
)
def test_only_a_pass_passes(verdict, passed, message):
    found = saltcheck.evaluate(verdict, "nginx.fly")
    assert found[0] is passed
    assert message in found[1]
