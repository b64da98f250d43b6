"""The bake looks on while states are applied; where it cannot, they are applied all the same, and never twice."""

from __future__ import annotations

import json
from subprocess import CompletedProcess
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.states import salt_call as states

ORDER = {
    "bake_id": "web.bake",
    "states": ["web"],
    "saltenv": None,
    "pillarenv": None,
    "within": 60,
    "hash_key": "k",
    "minion": {"master": "10.0.0.1"},
}
GOOD = {"local": {"file_|-a_|-a_|-managed": {"result": True, "__sls__": "web"}}}
BAD = {"local": {"file_|-a_|-a_|-managed": {"result": False, "comment": "no", "__sls__": "web", "changes": {}}}}


class FakeMachine:
    minion_id = "web.bake"

    def __init__(self, watched: tuple[int, Any], traced: bool, plain: tuple[int, Any] = (0, GOOD)) -> None:
        self.watched, self.traced, self.plain = watched, traced, plain
        self.calls: list[str] = []

    def run(self, words: list[str], env: object = None) -> CompletedProcess[str]:
        if words[:2] == ["cat", states.TRACE]:
            return CompletedProcess(words, 0 if self.traced else 1, '["sls", "web"]\n' if self.traced else "", "")
        is_watched = "saltext.immutable.builder.states.tracing" in words
        self.calls.append("watched" if is_watched else "plain")
        code, said = self.watched if is_watched else self.plain
        return CompletedProcess(words, code, json.dumps(said) if said else "", "")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.setattr(mirrors, "environment", dict)


def test_what_can_be_watched_is_called_once():
    machine = FakeMachine((0, GOOD), traced=True)
    assert states.apply(machine, ORDER) == (["web"], [])
    assert machine.calls == ["watched"]


def test_what_cannot_be_watched_is_called_plainly():
    machine = FakeMachine((1, None), traced=False)
    assert states.apply(machine, ORDER) == (["web"], [])
    assert machine.calls == ["watched", "plain"]
    assert states.trace(machine) is None


def test_states_that_fail_are_not_applied_again():
    machine = FakeMachine((2, BAD), traced=True)
    with pytest.raises(CommandExecutionError, match="1 of 1 states failed"):
        states.apply(machine, ORDER)
    assert machine.calls == ["watched"]


def test_an_image_without_salt_is_told_as_it_is():
    machine = FakeMachine((127, None), traced=False, plain=(127, None))
    with pytest.raises(CommandExecutionError, match="did not run"):
        states.apply(machine, ORDER)
