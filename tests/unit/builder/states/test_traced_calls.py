"""salt-call is traced where that is possible, otherwise called without it; states are never applied twice."""

from __future__ import annotations

import json
from subprocess import CompletedProcess
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.states import state_run as states

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

    def __init__(self, with_trace: tuple[int, Any], traced: bool, plain: tuple[int, Any] = (0, GOOD)) -> None:
        self.with_trace, self.traced, self.plain = with_trace, traced, plain
        self.calls: list[str] = []

    def run(self, words: list[str], env: object = None) -> CompletedProcess[str]:
        if words[:2] == ["cat", states.TRACE]:
            return CompletedProcess(words, 0 if self.traced else 1, '["sls", "web"]\n' if self.traced else "", "")
        if words[0] == "cat":  # a state file, which is not there
            return CompletedProcess(words, 1, "", "")
        is_traced = "saltext.immutable.builder.states.traced_salt_call" in words
        self.calls.append("traced" if is_traced else "plain")
        code, answer = self.with_trace if is_traced else self.plain
        return CompletedProcess(words, code, json.dumps(answer) if answer else "", "")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.setattr(mirrors, "environment", dict)


def test_a_traced_call_is_made_once():
    machine = FakeMachine((0, GOOD), traced=True)
    assert states.apply(machine, ORDER) == (["web"], [])
    assert machine.calls == ["traced"]


def test_where_no_call_can_be_traced_a_plain_one_follows():
    machine = FakeMachine((1, None), traced=False)
    assert states.apply(machine, ORDER) == (["web"], [])
    assert machine.calls == ["traced", "plain"]
    assert states.trace(machine) is None


def test_states_that_fail_are_not_applied_again():
    machine = FakeMachine((2, BAD), traced=True)
    with pytest.raises(CommandExecutionError, match="1 of 1 states failed"):
        states.apply(machine, ORDER)
    assert machine.calls == ["traced"]


@pytest.mark.parametrize("with_trace", [(2, BAD), (1, {"local": ["Rendering SLS 'base:web' failed"]})])
def test_states_that_fail_say_what_nobody_answered(with_trace, monkeypatch):
    asked = ["asked", "web/init.sls asked the mine for motto of db*", "nobody answered"]
    monkeypatch.setattr(states, "trace", lambda machine: [asked])
    with pytest.raises(CommandExecutionError, match="motto of db\\*, and nobody answered; if .* at_launch"):
        states.apply(FakeMachine(with_trace, traced=True), ORDER)


def test_an_image_without_salt_is_an_error():
    machine = FakeMachine((127, None), traced=False, plain=(127, None))
    with pytest.raises(CommandExecutionError, match="did not run"):
        states.apply(machine, ORDER)
