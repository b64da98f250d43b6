"""What a bake asks of the mine, of other minions and of secret stores is recorded, with whether there was an answer."""

from __future__ import annotations

import asyncio
import json
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
import salt.channel.client
import salt.fileclient
import salt.utils.event
import salt.utils.sdb
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.states import state_run
from saltext.immutable.builder.states.trace import SECRETS, Trace
from saltext.immutable.builder.states.watch import files as watch_files
from saltext.immutable.builder.states.watch import templates as watch_templates

MINE = {"cmd": "_mine_get", "fun": "motto", "tgt": "db*"}
PUBLISH, RESULT = {"cmd": "minion_pub", "fun": "test.ping", "tgt": "db*"}, {"cmd": "pub_ret", "jid": "1"}
AT_LAUNCH = "; if machines of the image need that, let a state of at_launch do it"


@pytest.fixture
def trace(tmp_path):
    found = Trace(str(tmp_path / "trace"), "", b"key")
    found.in_progress.append("web/init.sls")
    return found


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]


@pytest.mark.parametrize(
    ("exchanges", "said"),
    [
        pytest.param([(MINE, {"db1": "x"})], [], id="the mine answers"),
        pytest.param([(MINE, {})], ["asked the mine for motto of db*, and nobody answered"], id="it does not"),
        pytest.param([(MINE, {}), (MINE, {"db1": "x"})], [], id="at last it does"),
        pytest.param(
            [({**MINE, "fun": ["a", "b"]}, {})],
            ["asked the mine for a, b of db*, and nobody answered"],
            id="two functions",
        ),
        pytest.param([(PUBLISH, {"jid": "1"}), (RESULT, {}), (RESULT, {"db1": {"ret": 1}})], [], id="minions answer"),
        pytest.param(
            [(PUBLISH, {"jid": "1"}), (RESULT, {})],
            ["asked minions for test.ping of db*, and nobody answered"],
            id="they do not",
        ),
        pytest.param(
            [(PUBLISH, {})], ["asked minions for test.ping of db*, and nobody answered"], id="the master refuses"
        ),
        pytest.param([(RESULT, {})], [], id="the result of another job"),
        pytest.param([({"cmd": "_serve_file"}, "")], [], id="a file"),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_questions_without_an_answer_are_told(trace, tmp_path, monkeypatch, exchanges, said, waits):
    """Salt's channel gives an answer, or what gives one when it is waited for."""
    answers = iter([answer for _, answer in exchanges])

    async def later(self, load):
        return next(answers)

    channel = salt.channel.client.AsyncReqChannel
    for owner, *names in (
        (salt.fileclient.RemoteClient, "get_file", "hash_file", "hash_and_stat_file"),
        (channel, "crypted_transfer_decode_dictentry"),
    ):
        for name in names:  # they are put back at the end of the test
            monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(channel, "send", later if waits else lambda *_: next(answers))
    monkeypatch.setattr(salt.utils.event.SaltEvent, "fire_event", lambda *_: False)
    watch_files.watch_requests(trace)
    for load, answer in exchanges:
        found = channel.send(SimpleNamespace(), load)
        assert (asyncio.run(found) if waits else found) == answer
    assert state_run.unanswered(lines(tmp_path)) == [f"web/init.sls {each}{AT_LAUNCH}" for each in said]
    salt.utils.event.SaltEvent.fire_event(SimpleNamespace(), {}, "_minion_mine")
    assert "told the mine, and no minion runs in a bake" in state_run.unanswered(lines(tmp_path))[-1]


@pytest.mark.parametrize(
    ("uri", "given", "kept", "said"),
    [
        pytest.param("sdb://a/b", "secret", [["sdb://a/b", "secret"]], [], id="a value"),
        pytest.param("sdb://a/b", {"x": ["secret"]}, [["sdb://a/b", {"x": ["secret"]}]], [], id="several"),
        pytest.param("sdb://a/b", None, [], ["and nobody answered"], id="none"),
        pytest.param("sdb://a/b", "sdb://a/b", [], ["so the states have the URI itself"], id="no profile"),
        pytest.param("plain", "plain", [], [], id="no URI"),
        pytest.param({"a": 1}, {"a": 1}, [], [], id="no text"),
    ],
)
def test_values_of_a_store_stay_out_of_the_trace(trace, tmp_path, monkeypatch, uri, given, kept, said):
    monkeypatch.setattr(salt.utils.sdb, "sdb_get", lambda uri, opts: given)
    watch_templates.watch_stores(trace)
    assert salt.utils.sdb.sdb_get(uri, {}) == given
    apart = tmp_path / f"trace{SECRETS}"
    found = [json.loads(line) for line in apart.read_text().splitlines()] if apart.exists() else []
    assert found == kept and (not kept or apart.stat().st_mode & 0o777 == 0o600)
    text = (tmp_path / "trace").read_text()
    assert "secret\"" not in text and ("asks a secret store (sdb://a/b)" in text) == (uri == "sdb://a/b")
    assert all(word in each for word, each in zip(said, state_run.unanswered(lines(tmp_path)), strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_what_states_read_from_a_store_is_known_to_what_follows(fails):
    """Also where they fail: their output is redacted."""
    noted = CompletedProcess([], 0, '["sdb://a/b", "from-a-store"]\n["sdb://a/c", {"d": "deep-in-one"}]\n', "")
    known: list[object] = []
    try:
        with state_run.noting_secrets(SimpleNamespace(run=lambda words: noted), known):
            if fails:
                raise CommandExecutionError("no")
    except CommandExecutionError:
        assert fails
    assert [(each.pillar, each.value) for each in known] == [
        ("sdb://a/b", "from-a-store"),
        ("sdb://a/c:d", "deep-in-one"),
    ]
