"""An answer counts only with the proof that this machine gave it to this question, now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError, SaltReqTimeoutError

from saltext.immutable import minions
from saltext.immutable.guard import answers, gate, proof, seal
from saltext.immutable.minions import NoAnswer
from saltext.immutable.minions.keys import accepted_key
from saltext.immutable.minions.proven_answers import Outdated, Unproven
from saltext.immutable.spec.model import FunctionCheck

OLD = "'immutable.answer' is not available."


class FakeMachine:
    """A machine with a key: it answers what a job of ``immutable.answer`` asks."""

    def __init__(self, minion_id: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.id = minion_id
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        self.public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def answers(self, nonce: str, asked: str, said: Any = True, as_id: str | None = None) -> dict[str, Any]:
        text = json.dumps([{"return": said, "retcode": 0} for _ in json.loads(asked)])
        signed = proof.sign(nonce, as_id or self.id, asked, text, self.private)
        return {"return": {"answers": text, "proof": signed}}


WEB, EVIL = FakeMachine("web-1"), FakeMachine("evil")


class FakeClient:
    """Salt's client, and the bus: under the tag of the answer come the events that ``events`` makes of the job."""

    def __init__(self, *events: Any, known: bool = True) -> None:
        self.event, self.waits = self, []
        self.events, self.known, self.connected = list(events), known, False
        self.last: tuple[str, str] = ("", "")

    def connect_pub(self, timeout: float) -> None:
        self.connected = True

    def close_pub(self) -> None:
        self.connected = False

    def run_job(self, minion_id: str, fun: str, args: list[Any], tgt_type: str, **options: Any) -> dict[str, Any]:
        assert (fun, args, tgt_type) == ("immutable.answer", [], "list")
        assert self.connected, "else the answer could come before we listen"
        self.job = (options["kwarg"]["nonce"], options["kwarg"]["asked"])
        return {"jid": "17", "minions": [minion_id]} if self.known else {}

    def get_event(self, wait: float, tag: str, match_type: str) -> Any:
        self.waits.append(wait)
        assert (tag, match_type) == ("salt/job/17/ret/web-1", "startswith")
        event = self.events.pop(0) if self.events else None
        if isinstance(event, Exception):
            raise event
        return event(*self.job) if callable(event) else event


@pytest.fixture
def opts(tmp_path) -> dict[str, Any]:
    (tmp_path / "minions").mkdir()
    (tmp_path / "minions/web-1").write_bytes(WEB.public)
    return {"pki_dir": str(tmp_path)}


@pytest.fixture
def ask(opts):
    """Ask web-1 for a ping; what comes back are these events. Gives answer, alarms and client."""

    def ask(
        *events: Any, known: bool = True, within: float = 3, again: Any = None
    ) -> tuple[Any, list[str], FakeClient]:
        """``again``: what comes back when it is asked whether it proves anything at all."""
        alarms: list[str] = []
        asked, client = minions.Jobs(opts, forged=alarms.append), FakeClient(*events, known=known)
        asked._clients.client, asked._new_client = client, lambda: FakeClient(again)  # type: ignore[method-assign]
        try:
            found: Any = asked.ask("web-1", "test.ping", within=within)
        except CommandExecutionError as err:
            found = err
        assert all(0 < wait <= within for wait in client.waits) and not client.connected
        return found, alarms, client

    return ask


def changed(**changes: Any) -> Any:
    """An answer of web-1 that was changed on its way."""

    def event(nonce: str, asked: str) -> Any:
        true = WEB.answers(nonce, asked)["return"]
        return {"return": {**true, **changes}}

    return event


FORGED = [
    pytest.param(lambda nonce, asked: EVIL.answers(nonce, asked), id="signed by another minion"),
    pytest.param(lambda nonce, asked: EVIL.answers(nonce, asked, as_id="web-1"), id="in its name"),
    pytest.param(lambda nonce, asked: WEB.answers("0" * 32, asked), id="to an earlier question"),
    pytest.param(lambda nonce, asked: WEB.answers(nonce, '[["x.y", [], {}]]'), id="to another question"),
    pytest.param(lambda nonce, asked: WEB.answers(nonce, asked, as_id="web-2"), id="of another machine"),
    pytest.param(changed(answers='[{"return": true, "retcode": 0}] '), id="with another answer"),
    pytest.param(changed(proof="x"), id="with a proof that is none"),
    pytest.param(changed(proof=None), id="without one"),
    pytest.param(changed(answers=[True]), id="with answers of another shape"),
    pytest.param({"return": True}, id="a plain answer"),
    pytest.param({"return": {"answers": "[]", "proof": 7}}, id="numbers"),
    pytest.param({"id": "web-1"}, id="something else under that tag"),
    pytest.param("web-1", id="no data"),
]


def test_a_proven_answer_counts(ask):
    assert ask(WEB.answers)[:2] == (True, [])


@pytest.mark.parametrize("event", FORGED)
def test_nothing_else_does_and_it_raises_an_alarm(ask, event):
    found, alarms, _ = ask(event)
    assert isinstance(found, Unproven) and "does not prove its answers" in str(found)
    assert alarms == ["web-1"]


@pytest.mark.parametrize("event", FORGED)
def test_a_forged_answer_does_not_keep_the_true_one_away(ask, event):
    assert ask(event, event, WEB.answers)[:2] == (True, ["web-1", "web-1"])


SAYS_OLD = {"return": OLD, "retcode": 254}


@pytest.mark.parametrize("again", [None, SAYS_OLD, EVIL.answers, OSError("no master")])
def test_an_older_pack_is_said_so_and_not_waited_for(ask, again):
    found, alarms, client = ask(SAYS_OLD, within=60, again=again)
    assert isinstance(found, Outdated) and "older version of this pack; the next roll replaces it" in str(found)
    assert (alarms, len(client.waits)) == ([], 1)


def test_that_it_is_older_is_not_believed_of_one_that_proves_its_answers(ask):
    """Any minion can say so in its name; a long answer must not be missed for that."""
    assert ask(SAYS_OLD, SAYS_OLD, WEB.answers, within=900, again=WEB.answers)[:2] == (True, ["web-1", "web-1"])


def signed(text: str) -> Any:
    """What web-1 signs, whatever it is."""

    def event(nonce: str, asked: str) -> Any:
        return {"return": {"answers": text, "proof": proof.sign(nonce, "web-1", asked, text, WEB.private)}}

    return event


@pytest.mark.parametrize(
    "text",
    [
        *("x", "", "null", "5", '"x"', '{"a": 1}', "[" * 100_000, "[NaN]", "[Infinity]", "[1e999]", "[-1e999]"),
        *(f"[{'9' * 5000}]", '[{"return": 1}', "[]", "[1, 2]"),
    ],
    ids=lambda text: text[:20],
)
def test_what_a_machine_signs_stops_nobody(ask, text):
    found, alarms, _ = ask(signed(text))
    assert isinstance(found, NoAnswer) and alarms == []
    assert str(found).startswith("web-1: immutable.answer returned") and len(str(found)) < 400


@pytest.mark.parametrize(
    ("events", "known", "says"),
    [
        pytest.param([None], True, "does not answer", id="silence"),
        pytest.param([WEB.answers], False, "does not answer", id="a job that reached nobody"),
        pytest.param([SaltReqTimeoutError("no master")], True, "cannot be reached", id="no master"),
        pytest.param([ConnectionResetError()], True, "cannot be reached", id="a master that goes"),
    ],
)
def test_without_an_answer(ask, events, known, says):
    found, alarms, _ = ask(*events, known=known)
    assert type(found) is NoAnswer and says in str(found) and not alarms


def test_a_minion_without_a_key_is_not_asked(ask, opts):
    Path(opts["pki_dir"], "minions/web-1").unlink()
    found, _, client = ask(WEB.answers)
    assert isinstance(found, NoAnswer) and "no accepted key" in str(found) and not client.waits


def test_each_question_has_a_nonce_of_its_own():
    assert len({proof.new_nonce() for _ in range(100)}) == 100


def test_a_key_comes_from_salts_cache_where_it_keeps_keys_elsewhere(monkeypatch):
    class FakeCache:
        def __init__(self, opts: Any, driver: str) -> None:
            assert driver == "mysql"

        def fetch(self, bank: str, key: str) -> Any:
            return {"web-1": {"state": "accepted", "pub": "A"}, "web-2": {"state": "pending", "pub": "B"}}.get(key)

    monkeypatch.setattr("salt.cache.Cache", FakeCache)
    opts = {"keys.cache_driver": "mysql"}
    assert [accepted_key(opts, name) for name in ("web-1", "web-2", "web-3")] == [b"A", None, None]


# The machine


@pytest.fixture
def machine(tmp_path, monkeypatch) -> dict[str, Any]:
    """The opts of a sealed machine that refuses cmd.run."""
    (tmp_path / "minion.pem").write_bytes(WEB.private)
    (tmp_path / "seal.json").touch()
    monkeypatch.setattr(seal, "SEAL_PATH", str(tmp_path / "seal.json"))
    refused = lambda opts, data, fun, args, kwargs: f"sealed: {fun}" if fun == "cmd.run" else None  # noqa: E731
    monkeypatch.setattr(gate, "refusal", refused)
    return {"pki_dir": str(tmp_path), "id": "web-1"}


def answered(machine: dict[str, Any], *questions: Any, asked: Any = None) -> list[Any]:
    context: dict[str, Any] = {}

    def call(fun: str, *args: Any, **kwargs: Any) -> Any:
        if fun == "x.fails":
            raise CommandExecutionError("no such unit")
        if fun == "x.breaks":
            raise ValueError("boom")
        if fun == "x.code":
            context["retcode"] = 2
        return {"test.echo": lambda word: word, "x.code": lambda: "two", "x.set": lambda: {1}, "x.kw": dict}[fun](
            *args, **kwargs
        )

    asked = json.dumps(questions) if asked is None else asked
    found = answers.answer(machine, {}, call, context, "nonce", asked)
    text = asked if isinstance(asked, str) else json.dumps(asked)
    assert proof.holds(found["proof"], "nonce", "web-1", text, found["answers"], WEB.public)
    assert context["retcode"] == 0
    return list(json.loads(found["answers"]))


def test_a_machine_answers_each_question(machine):
    assert answered(machine, ["test.echo", ["a"], {}], ["x.code", [], {}], ["x.kw", [], {"a": 1}]) == [
        {"return": "a", "retcode": 0},
        {"return": "two", "retcode": 2},
        {"return": {"a": 1}, "retcode": 0},
    ]


def test_what_fails_is_an_error_and_ends_no_other(machine):
    found = answered(
        machine, ["x.fails", [], {}], ["x.breaks", [], {}], ["no.such", [], {}], ["test.echo", ["a"], {}]
    )
    assert [one.get("error") for one in found] == ["no such unit", "ValueError: boom", "no.such is not available", None]


def test_each_question_passes_the_guard(machine):
    assert answered(machine, ["cmd.run", ["id"], {}]) == [{"error": "sealed: cmd.run"}]


def test_what_json_does_not_know_is_text(machine):
    assert answered(machine, ["x.set", [], {}]) == [{"return": "{1}", "retcode": 0}]


def test_a_command_line_may_give_a_list(machine):
    assert answered(machine, asked=[["test.echo", ["a"], {}]]) == [{"return": "a", "retcode": 0}]


@pytest.mark.parametrize(
    "asked", ["", "x", "7", "[7]", '[["a.b"]]', '[[1, [], {}]]', '[["a.b", {}, []]]', '[["immutable.answer", [], {}]]']
    + [json.dumps([["a.b", [], {}]] * 51)],
)  # fmt: skip
def test_what_is_no_question_is_refused(machine, asked):
    with pytest.raises(CommandExecutionError, match="asked: "):
        answered(machine, asked=asked)


def test_master_and_machine_agree(machine, opts):
    alarms: list[str] = []
    call = {"test.echo": lambda *args: list(args)}

    def event(nonce: str, asked: str) -> Any:
        return {"return": answers.answer(machine, {}, lambda fun, *a, **k: call[fun](*a, **k), {}, nonce, asked)}

    asked = minions.Jobs(opts, forged=alarms.append)
    asked._clients.client = FakeClient(event)
    given = ("\u00e9\n", 1.5, None, [1, {"a": [True]}])
    assert asked.ask_all("web-1", [FunctionCheck("test.echo", given)], within=3) == [list(given)]
    assert not alarms
