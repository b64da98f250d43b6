"""Several recipes in one go: who waits for whom, what a failure stops, and that one Ctrl-C ends all."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import parallel
from saltext.immutable.bake.context import silent
from saltext.immutable.bake.parallel import ParallelBakes
from saltext.immutable.spec.model import Definitions, Minion, Recipe
from saltext.immutable.spec.origins import Debian, Parent, ParentImage

BASE = Recipe("base", Debian("bookworm"), "base-bake", Minion())
KNOWN = Definitions(
    {
        "base": BASE,
        "web": Recipe("web", Parent("base"), "web-bake"),
        "shop": Recipe("shop", Parent("web"), "shop-bake"),
        "site": Recipe("site", ParentImage("web:stable"), "site-bake"),
        "fixed": Recipe("fixed", ParentImage("web@3f2a9c"), "fixed-bake"),
        "other": Recipe("other", Debian("bookworm"), "other-bake", Minion()),
    },
    {},
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param("web", ("web",), id="one"),
        pytest.param("base, web,base", ("base", "web"), id="with commas, each once"),
        pytest.param(["base", "web"], ("base", "web"), id="a list"),
    ],
)
def test_what_is_named(given, found):
    assert parallel.recipes(given) == found


@pytest.mark.parametrize("given", ["", ",", [], 5, [["web"]], None])
def test_what_names_nothing(given):
    with pytest.raises(SaltInvocationError, match=r"^name: "):
        parallel.recipes(given)


def test_a_recipe_waits_for_those_that_it_is_built_from_also_over_one_that_is_not_named():
    assert parallel.parents_of(["shop", "base", "other"], KNOWN) == {"shop": {"base"}, "base": set(), "other": set()}
    found = parallel.parents_of(["site", "base", "fixed"], KNOWN)
    assert found == {"site": {"base"}, "base": set(), "fixed": set()}, "a bake moves a channel, and no digest"
    with pytest.raises(SaltInvocationError, match="there is no recipe 'wbe'; did you mean 'web'"):
        parallel.parents_of(["base", "wbe"], KNOWN)


class Log:
    """What the processes did, in order."""

    def __init__(self, place: Path) -> None:
        self.file = place / "log"
        self.file.touch()

    def add(self, word: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{word}\n")

    @property
    def words(self) -> list[str]:
        return self.file.read_text().split()

    def wait(self, word: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while word not in self.words:
            assert time.monotonic() < end, self.words


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path)


def test_parents_come_first_and_what_is_said_bears_the_name(log):
    heard: list[tuple[str, str, dict[str, Any]]] = []

    def one(name: str, progress: Any) -> dict[str, Any]:
        log.add(name)
        progress("building", "image/layer", what=name)
        return {"image": f"{name}@1"}

    def listen(message: str, tag: str, **data: Any) -> None:
        heard.append((message, tag, data))

    reports = ParallelBakes({"shop": {"web"}, "web": {"base"}, "base": set()}, one, listen, 4).run()
    assert log.words == ["base", "web", "shop"]
    assert reports["shop"] == {"image": "shop@1"}
    assert heard[0] == ("base: building", "image/layer", {"what": "base"})


def test_independent_ones_are_at_work_at_the_same_time(log):
    def one(name: str, progress: Any) -> dict[str, Any]:
        log.add(name)
        log.wait({"a": "b", "b": "a"}[name])
        return {}

    assert ParallelBakes({"a": set(), "b": set()}, one, silent, 2).run() == {"a": {}, "b": {}}


def test_no_more_than_so_many_at_once(log):
    def one(name: str, progress: Any) -> dict[str, Any]:
        log.add(f"{name}+")
        log.add(f"{name}-")
        return {}

    ParallelBakes({"a": set(), "b": set(), "c": set()}, one, silent, 1).run()
    assert log.words == ["a+", "a-", "b+", "b-", "c+", "c-"]


def fails(name: str, progress: Any) -> dict[str, Any]:
    if name == "bug":
        raise ValueError("oh")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "base":
        raise CommandExecutionError("1 of 2 states failed")
    return {"image": name}


def test_a_failure_stops_only_what_needs_it():
    needs = {"base": set(), "web": {"base"}, "shop": {"web"}, "other": set(), "bug": set(), "killed": set()}
    reports = ParallelBakes(needs, fails, silent, 2).run()
    assert reports["base"] == {"error": "1 of 2 states failed"}
    assert reports["web"] == {"error": "not baked, as base failed"}
    assert reports["shop"] == {"error": "not baked, as web failed"}
    assert reports["other"] == {"image": "other"}
    assert "a defect" in reports["bug"]["error"] and "oh" in reports["bug"]["error"]
    assert reports["killed"] == {"error": "its process was killed"}


def test_what_fails_last_stops_the_rest_at_once():
    reports = ParallelBakes({"web": {"base"}, "base": set()}, fails, silent, 1).run()
    assert reports["web"] == {"error": "not baked, as base failed"}


def test_ctrl_c_lets_each_undo_what_it_did_once_and_begins_no_more(log):
    def one(name: str, progress: Any) -> dict[str, Any]:
        try:
            log.add(name)
            progress("at work", "x")
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # again, in the midst of it
            log.add(f"{name}-undone")
        return {}

    def listen(message: str, tag: str, **data: Any) -> None:
        if {"a", "b"} <= set(log.words):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ParallelBakes({"a": set(), "b": set(), "c": set(), "d": {"a"}}, one, listen, 2).run()
    assert sorted(log.words) == ["a", "a-undone", "b", "b-undone"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_one_recipe_is_baked_right_here(monkeypatch):
    monkeypatch.setattr(parallel.baking, "bake", lambda name, opts, **how: {"image": name, "pid": os.getpid(), **how})
    assert parallel.bake("web", {}, progress=silent, channel="x")["pid"] == os.getpid()


def test_several_are_reported_together_and_the_exit_code_tells_of_a_failure(monkeypatch):
    monkeypatch.setattr(parallel.baking, "bake", lambda name, opts, progress, **how: fails(name, progress))
    monkeypatch.setattr(parallel.minions, "definitions", lambda opts: KNOWN)
    report = parallel.bake("web,other,base", {}, progress=silent)
    assert (report["failed"], report["retcode"]) == (["web", "base"], 1)
    assert report["recipes"]["other"] == {"image": "other"}
    assert list(report["recipes"]) == ["web", "other", "base"]
