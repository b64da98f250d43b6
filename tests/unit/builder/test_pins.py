"""Requests for files name the pin of their environment; all else, and what states see, is as without pins."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.immutable.builder import pins
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.states import state_run

PINS = {"base": "f00", "dev": "f01"}
ORDER = {
    **{"bake_id": "web.bake", "states": ["web"], "saltenv": None, "pillarenv": None, "within": 60, "hash_key": "k"},
    **{"minion": {"master": "10.0.0.1"}, "pins": PINS, "tests": {"tests": [{}], "recipe": "web"}},
}


def sent(load: Any) -> Any:
    """Return what reaches the master of a request."""

    class Channel:
        async def send(self, load: Any, *args: Any, **kwargs: Any) -> Any:
            return load

    pins.pin(Channel, PINS)
    return asyncio.run(Channel().send(load))


@pytest.mark.parametrize(
    ("load", "saltenv"),
    [
        *(pytest.param({"cmd": each, "saltenv": "base"}, "f00", id=each) for each in pins._OF_FILES),
        pytest.param({"cmd": "_serve_file", "saltenv": "dev"}, "f01", id="each environment has its own"),
        pytest.param({"cmd": "_serve_file", "saltenv": "new"}, "new", id="one that is not pinned"),
        pytest.param({"cmd": "_pillar", "saltenv": "base"}, "base", id="the pillar, which the master compiles"),
    ],
)
def test_a_request_for_files_has_the_pin_of_its_environment(load, saltenv):
    before = dict(load)
    assert sent(load) == {**before, "saltenv": saltenv}
    assert load == before, "Salt uses it again"


def test_there_are_no_environments_but_those_of_the_beginning():
    assert sent({"cmd": "_file_envs"}) == ["base", "dev"]


def test_what_is_no_request_passes():
    assert sent("text") == "text"


class FakeMachine:
    def __init__(self, can_pin: bool = True) -> None:
        self.can_pin, self.calls = can_pin, list[tuple[list[str], dict[str, str]]]()

    def run(self, words: list[str], env: dict[str, str] | None = None, stdin: str = "") -> SimpleNamespace:
        self.calls.append((words, dict(env or {})))
        answer = '{"local": {"file_|-a_|-a_|-managed": {"result": true, "__sls__": "web"}}}'
        return SimpleNamespace(returncode=0 if self.can_pin else 1, stdout=answer, stderr="")


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda machine, order: state_run.sync(machine, order), id="custom modules"),
        pytest.param(lambda machine, order: state_run.apply(machine, order), id="states"),
        pytest.param(lambda machine, order: state_run.apply_again(machine, order, ()), id="states once more"),
        pytest.param(lambda machine, order: run.run_inside(machine, order, ()), id="tests"),
    ],
)
def test_every_process_that_asks_the_master_for_files_is_told_the_pins(ask, monkeypatch):
    monkeypatch.setattr(state_run.mirrors, "environment", dict)
    machine = FakeMachine()
    ask(machine, ORDER)
    ask(machine, {**ORDER, "pins": {}})
    pinned, plain = machine.calls[: len(machine.calls) // 2], machine.calls[len(machine.calls) // 2 :]
    assert {env.get(pins.PINS) for _, env in pinned} == {'{"base": "f00", "dev": "f01"}'}
    assert all("-m" in words for words, _ in pinned), "a module of ours reads the variable"
    assert all(pins.PINS not in env and pins.__name__ not in words for words, env in plain)


@pytest.mark.parametrize("can_pin", [True, False])
def test_an_image_with_an_older_pack_cannot_pin(can_pin):
    assert state_run.can_pin(FakeMachine(can_pin)) is can_pin
