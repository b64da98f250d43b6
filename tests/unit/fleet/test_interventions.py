"""The commands on single machines: who may be tainted, what is recorded, and when a machine opens."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.interventions import Interventions
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.show import report
from saltext.immutable.guard.break_glass_token import Grant, verify
from saltext.immutable.minions import NoAnswer
from saltext.immutable.spec.model import Definitions
from saltext.immutable.store import Store, schema

CHALLENGE = {
    "machine": "web-1",
    "nonce": "0" * 32,
    "boot_id": "b",
    "until": 1000.5,
    "opens": ["every function of Salt"],
    "cannot": ["the root is mounted read-only\x1b[2J"],
}


class Salt:
    """A master that has two keys, and the machine web-1 with the given answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {"immutable.break_glass_challenge": CHALLENGE}
        self.before_answer = lambda: None

    def accepted(self, minion_id: str) -> bool:
        return minion_id in ("web-1", "pet.example.com")

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        self.calls.append((minion_id, fun, kwargs))
        self.before_answer()
        answer = self.answers.get(fun, True)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def salt() -> Salt:
    return Salt()


@pytest.fixture
def operations(salt) -> Operations:
    """Fleet web has machine web-1; jane gives the commands."""
    store = Store.open("sqlite://", clock=lambda: 100.0)
    row = {"fleet": "web", "generation": 1, "intent": "launched", "born": 1.0, "ready_since": 2.0, "reason": ""}
    launched_as = {"number": 1, "image": "1" * 64, "provider": "p", "settings": {}, "created": 1.0}
    with store.write() as tx:
        tx.execute(sa.insert(schema.generations).values(fleet="web", **launched_as))
        tx.execute(sa.insert(schema.machines).values(minion_id="web-1", **row))
    return Operations(store, Definitions({}, {}), salt, None, None, clock=lambda: 100.0, user="jane", jid="2026")


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def interventions(operations, events) -> Interventions:
    return Interventions(operations, lambda message, tag, **data: events.append((tag, data)))


def entries(operations, fleet="web") -> list[tuple[str, str]]:
    return [(entry.what, entry.reason) for entry in operations.audit.entries(fleet)]


def test_a_taint_is_recorded_fires_an_event_and_is_not_repeated(interventions, operations, events):
    first = interventions.taint("web-1", "vim /etc/motd")
    assert (first["fleet"], first["changed"], first["tainted"]) == ("web", True, ["vim /etc/motd"])
    again = interventions.taint("web-1", "another reason")
    assert (again["changed"], again["tainted"]) == (False, ["vim /etc/motd"])
    assert operations.audit.entries("web") == [
        AuditEntry(100.0, "web", "web-1", "tainted", "vim /etc/motd", "jane", "2026")
    ]
    [(tag, data)] = events
    assert tag == "web/tainted"
    assert data | {"minion_id": "web-1", "reason": "vim /etc/motd", "who": "jane", "kind": "hand"} == data


def test_a_machine_that_is_gone_meanwhile_is_not_tainted(interventions, operations):
    entry = operations.audit_entry("tainted", "web-1", "web", "why")
    with operations.store.write() as tx:
        tx.execute(sa.delete(schema.machines))
    assert interventions.add_taint("drift", entry)["changed"] is False
    assert operations.taints.of_machine("web-1") == []


def test_a_dry_run_of_each_does_nothing(interventions, operations, salt, events):
    assert interventions.taint("web-1", "why", test=True)["result"] is None
    assert interventions.break_glass({}, "web-1", "why", test=True)["result"] is None
    assert operations.taints.of_machine("web-1") == []
    interventions.taint("web-1", "why")
    assert interventions.untaint("web-1", test=True)["result"] is None
    assert operations.taints.of_machine("web-1")
    assert (len(events), salt.calls) == (1, [])


def test_untaint_removes_every_taint_except_that_of_break_glass(interventions, operations):
    interventions.taint("web-1", "why")
    interventions.add_taint("drift", operations.audit_entry("tainted", "web-1", "web", "1 drifted"))
    assert interventions.untaint("web-1", "false alarm")["tainted"] == []
    assert interventions.untaint("web-1")["changed"] is False
    assert entries(operations) == [("untainted", "false alarm"), ("tainted", "1 drifted"), ("tainted", "why")]


def test_the_history_includes_machines_of_no_fleet(interventions, operations):
    interventions.taint("pet.example.com", "why")
    [entry] = report.history_of_all(operations)["adopted"]
    assert entry == {
        "at": "1970-01-01 00:01:40+00:00",
        "minion_id": "pet.example.com",
        "what": "tainted",
        "reason": "why",
        "who": "jane",
        "jid": "2026",
    }


def test_a_machine_that_no_fleet_launched_needs_a_key(interventions, operations, events):
    assert interventions.taint("pet.example.com", "why")["fleet"] is None
    assert events[0][0] == "adopted/tainted"
    assert list(operations.taints.of_fleet(None)) == ["pet.example.com"]
    with pytest.raises(SaltInvocationError, match=r"stranger is not a machine of a fleet \(web\), and has no key"):
        interventions.taint("stranger", "why")


@pytest.mark.parametrize("minion_id", ["*", "web-*", "", "../web-1", "web-1 web-2", "G@os:Debian"])
@pytest.mark.parametrize("do", ["taint", "untaint", "break_glass", "end_break_glass"])
def test_a_command_is_about_one_machine(interventions, salt, do, minion_id):
    args = {"taint": (minion_id, "why"), "untaint": (minion_id,), "break_glass": ({}, minion_id, "why")}
    with pytest.raises(SaltInvocationError, match="minion_id: .*name one machine"):
        getattr(interventions, do)(*args.get(do, (minion_id,)))
    assert salt.calls == []


@pytest.mark.parametrize("reason", [None, "", "  ", "\n"])
def test_a_reason_is_needed(interventions, reason):
    with pytest.raises(SaltInvocationError, match="reason: say why"):
        interventions.taint("web-1", reason)
    with pytest.raises(SaltInvocationError, match="reason: say why"):
        interventions.break_glass({}, "web-1", reason)


def test_an_event_alone_taints_no_machine(interventions, operations):
    with pytest.raises(CommandExecutionError, match="no drift of web-1 is recorded; `salt-run fleet.drift"):
        interventions.taint("web-1", "an event events so", kind="drift")
    operations.audit.write(operations.audit_entry("drift", "web-1", "web", "1 drifted: file /etc/motd changed"))
    result = interventions.taint("web-1", "an event events so", kind="drift")
    assert result["tainted"] == ["1 drifted: file /etc/motd changed"]
    interventions.untaint("web-1")
    operations.audit.write(operations.audit_entry("no drift", "web-1", "web", ""))
    with pytest.raises(CommandExecutionError, match="no drift of web-1"):
        interventions.taint("web-1", None, kind="drift")
    with pytest.raises(SaltInvocationError, match="kind: must be hand or drift, not 'break_glass'"):
        interventions.taint("web-1", "why", kind="break_glass")


# Break-glass


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def opts(tmp_path, key) -> dict[str, Any]:
    sealed = BestAvailableEncryption(b"opensesame")
    (tmp_path / "master.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    return {"pki_dir": str(tmp_path), "key_pass": "opensesame"}


def test_a_machine_is_tainted_before_it_gets_a_token_that_the_master_signed(
    interventions, operations, salt, events, opts, key
):
    taints = []
    salt.before_answer = lambda: taints.append([taint.kind for taint in operations.taints.of_machine("web-1")])
    result = interventions.break_glass(opts, "web-1", "core dump", ttl="30m")
    assert taints == [[], ["break_glass"]], "challenge, taint, token"
    (_, _, arguments), (_, fun, sent) = salt.calls
    assert (arguments, fun) == ({"ttl": 1800.0}, "immutable.break_glass")
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert verify(sent["token"], public) == Grant("web-1", "0" * 32, "b", 1000.5, "core dump", "jane")
    assert result["tainted"] == ["break-glass for 1800 s: core dump"]
    assert result["opens"] == ["every function of Salt"]
    assert result["cannot"] == ["the root is mounted read-only\\x1b[2J"], "a machine cannot control a terminal"
    [(tag, data)] = events
    assert tag == "break_glass/web-1"
    assert (data["who"], data["reason"], data["ttl"]) == ("jane", "break-glass for 1800 s: core dump", 1800.0)
    assert sent["token"] not in repr((events, operations.audit.entries("web"), result))


def test_an_opened_machine_is_tainted_for_ever_and_each_break_glass_is_recorded(interventions, operations, opts):
    interventions.break_glass(opts, "web-1", "first")
    interventions.break_glass(opts, "web-1", "second", ttl=60)
    with pytest.raises(CommandExecutionError, match="web-1 was opened by break-glass.*`salt-run fleet.roll web`"):
        interventions.untaint("web-1", "it was nothing")
    result = interventions.end_break_glass("web-1")
    assert result["tainted"] == ["break-glass for 900 s: first"]
    assert [what for what, _ in entries(operations)] == ["end of break-glass", "break-glass", "break-glass"]


@pytest.mark.parametrize(
    ("ttl", "message"),
    [
        pytest.param("5h", "ttl: 18000 s is longer than the maximum of 14400 s", id="too long"),
        pytest.param("soon", "ttl: must be a duration", id="no duration"),
        pytest.param(0, "ttl: must be more than 0", id="nothing"),
    ],
)
def test_the_time_is_bounded(interventions, operations, salt, opts, ttl, message):
    with pytest.raises(SaltInvocationError, match=message):
        interventions.break_glass(opts, "web-1", "why", ttl=ttl)
    assert (operations.taints.of_machine("web-1"), salt.calls) == ([], [])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param({**CHALLENGE, "machine": "web-2"}, "asks for a token of another machine", id="another machine's"),
        pytest.param({**CHALLENGE, "nonce": None}, "sent a malformed challenge", id="no nonce"),
        pytest.param({**CHALLENGE, "until": "late"}, "sent a malformed challenge", id="no time"),
        pytest.param("'immutable.break_glass_challenge' is not available.", "another machine", id="without the pack"),
        pytest.param(NoAnswer("web-1 does not answer"), "does not answer", id="silence"),
        pytest.param(CommandExecutionError("not sealed\x1b[2J"), r"not sealed\\x1b", id="not sealed"),
    ],
)
def test_a_wrong_answer_opens_nothing_and_taints_nothing(interventions, operations, salt, opts, answer, message):
    salt.answers["immutable.break_glass_challenge"] = answer
    with pytest.raises(CommandExecutionError, match=message):
        interventions.break_glass(opts, "web-1", "why")
    assert operations.taints.of_machine("web-1") == []


def test_a_machine_that_did_not_accept_the_token_is_tainted_all_the_same(interventions, operations, salt, opts):
    salt.answers["immutable.break_glass"] = NoAnswer("web-1 does not answer")
    with pytest.raises(
        CommandExecutionError, match="does not answer .the machine is tainted anyway, and may be open"
    ):
        interventions.break_glass(opts, "web-1", "why")
    assert [taint.kind for taint in operations.taints.of_machine("web-1")] == ["break_glass"]


def test_without_the_masters_key_no_machine_is_called(interventions, operations, salt, tmp_path):
    with pytest.raises(CommandExecutionError, match="the master's key .*master.pem cannot be read"):
        interventions.break_glass({"pki_dir": str(tmp_path)}, "web-1", "why")
    assert (operations.taints.of_machine("web-1"), salt.calls) == ([], [])
