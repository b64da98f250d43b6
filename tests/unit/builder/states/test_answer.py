"""The answer of salt-call, among what else is written to the same output."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

import pytest

from saltext.immutable.builder.states import state_run

ANSWER = json.dumps({"local": {"a": {"result": True}}}, indent=4)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        pytest.param(ANSWER, {"a": {"result": True}}, id="alone"),
        pytest.param(f"{ANSWER}\nlocal:\n    True\n", {"a": {"result": True}}, id="a process in the background ends"),
        pytest.param(f"{{not it}}\n{{}}\n[1]\n{ANSWER}\n{{", {"a": {"result": True}}, id="braces before and behind"),
        pytest.param('{"local": ["no SLS"]}', ["no SLS"], id="errors"),
        pytest.param("", None, id="nothing"),
        pytest.param('{"other": 1}\n{"local": ', None, id="none"),
    ],
)
def test_the_answer_is_found(output, answer):
    assert state_run._parse(CompletedProcess([], 0, output, "")) == answer
