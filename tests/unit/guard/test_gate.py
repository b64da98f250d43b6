"""The gate before every call of a sealed machine: it counts, it fires events, and break-glass opens it for a while."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError
from salt.utils.crypt import pem_finger

from saltext.immutable.executors import direct_call, splay, sudo
from saltext.immutable.guard import break_glass, gate, intake, seal
from saltext.immutable.guard.break_glass_token import MAX_TTL, Grant, sign

MINE = {"mine_functions": {"network.ip_addrs": ["eth0"], "leak": [{"mine_function": "cmd.run"}, "id"]}}


def key_pair() -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


PRIVATE, PUBLIC = key_pair()


@pytest.fixture
def machine(tmp_path, monkeypatch) -> SimpleNamespace:
    """A sealed machine of fleet shop, whose clock and boot are ours to choose."""
    pki = tmp_path / "pki"
    pki.mkdir()
    (pki / "minion_master.pub").write_bytes(PUBLIC)
    finger = pem_finger(str(pki / "minion_master.pub"), sum_type="sha256")
    found = SimpleNamespace(
        opts={"id": "web-1", "pki_dir": str(pki)}, now=100.0, boot="boot-a", events=[], run=tmp_path / "run", pki=pki
    )
    policy = {"guard": {"allow": [], "deny": ["service.stop"], "dry_runs": True}, "writable": ["/srv/data"]}
    sealed = {"image": "3f2a9c1d04be" + "0" * 52, "recipe": "web", "read_only": True, "created": 1.0}
    (tmp_path / "seal.json").write_text(json.dumps({**sealed, "salt": "3008.3", "pack": "0.1", "policy": policy}))
    own = {"id": "web-1", "master_finger": finger, "hash_type": "sha256", "immutable_machine": {"fleet": "shop"}}
    (tmp_path / "machine.conf").write_text(json.dumps(own))
    monkeypatch.setattr(seal, "SEAL_PATH", str(tmp_path / "seal.json"))
    monkeypatch.setattr(seal, "MACHINE_PATH", str(tmp_path / "machine.conf"))
    monkeypatch.setattr(seal, "RUN_PATH", str(tmp_path / "run"))
    monkeypatch.setattr(break_glass, "_now", lambda: found.now)
    monkeypatch.setattr(break_glass, "_boot", lambda: found.boot)
    monkeypatch.setattr(gate, "_fire", lambda opts, tag, data: found.events.append((tag, data)))
    return found


def ask(machine: SimpleNamespace, fun: str, *args: Any, **kwargs: Any) -> str | None:
    return gate.refusal(machine.opts, {"user": "ada", "jid": "7"}, fun, args, kwargs)


def token(_machine: SimpleNamespace, private: bytes = PRIVATE, ttl: float = 60, **changed: Any) -> str:
    challenge = break_glass.challenge(ttl)
    bound = {name: challenge[name] for name in ("machine", "nonce", "boot_id", "until")}
    return sign(Grant(**{**bound, "reason": "disk", "who": "ada", **changed}), private)


def test_a_highstate_that_would_sync_first_is_no_dry_run(machine):
    assert "syncs custom modules first" in str(ask(machine, "state.highstate", test=True)), "Salt's own default"
    machine.opts["autoload_dynamic_modules"] = False
    assert ask(machine, "state.highstate", test=True) is None


def test_a_refusal_is_counted_and_fires_an_event(machine):
    assert "cmd.run" in str(ask(machine, "cmd.run", "id"))
    ask(machine, "cmd.run", "id")
    [(tag, data), _] = machine.events
    assert tag == "immutable/refused"
    assert {name: data[name] for name in ("id", "fun", "user", "jid")} == {
        "id": "web-1",
        "fun": "cmd.run",
        "user": "ada",
        "jid": "7",
    }
    assert gate.counts() == {"refused": {"cmd.run": 2}}


def test_what_operates_is_counted_and_fires_an_event_and_what_reads_does_not(machine):
    assert ask(machine, "test.ping") is None
    assert ask(machine, "service.restart", "nginx") is None
    assert [tag for tag, _ in machine.events] == ["immutable/operated"]
    assert gate.counts() == {"operated": {"service.restart": 1}}


def test_the_recipes_deny_counts(machine):
    assert "service.stop" in str(ask(machine, "service.stop", "nginx"))


def test_a_seal_that_changes_counts_from_the_next_call_on(machine):
    assert ask(machine, "service.restart", "nginx") is None
    path = Path(seal.SEAL_PATH)
    before = path.read_text()
    path.write_text(before.replace("service.stop", "service.rest*"))
    assert "denies" in str(ask(machine, "service.restart", "nginx"))
    path.write_text(before[:-1])
    assert "is damaged" in str(ask(machine, "test.echo", "x"))


def test_invented_function_names_do_not_fill_the_counts(machine):
    for number in range(gate.MAX_COUNTED + 20):
        ask(machine, f"made.up{number}")
    found = gate.counts()["refused"]
    assert len(found) == gate.MAX_COUNTED + 1
    assert found[gate.OTHERS] == 20


def test_a_machine_that_cannot_count_refuses_all_the_same(machine, monkeypatch):
    machine.run.write_text("no directory")
    monkeypatch.setattr(gate, "_fire", lambda *_: (_ for _ in ()).throw(RuntimeError("no bus")))
    assert ask(machine, "cmd.run", "id") is not None
    assert gate.counts() == {}


def test_a_lock_on_the_counts_delays_no_refusal(machine, monkeypatch):
    monkeypatch.setattr(gate.time, "sleep", lambda seconds: None)
    machine.run.mkdir()
    with (machine.run / "counts.json").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ask(machine, "cmd.run", "id") is not None
    assert [tag for tag, _ in machine.events] == ["immutable/refused"]


@pytest.mark.parametrize("place", ["opts", "pillar", "master"])
def test_the_mine_calls_nothing_that_changes(machine, place):
    where = {"opts": MINE, "pillar": {"pillar": MINE}, "master": {"pillar": {"master": MINE}}}[place]
    machine.opts.update(where)
    assert "mine_functions" in str(ask(machine, "mine.update"))


def test_the_mine_of_what_only_reads_is_updated(machine):
    machine.opts["mine_functions"] = {
        "network.ip_addrs": ["eth0"],
        "grains.items": [],
        "up": {"mine_function": "test.ping"},
    }
    assert ask(machine, "mine.update") is None
    machine.opts["mine_functions"] = ["test.ping"]
    assert ask(machine, "mine.update") is None


@pytest.mark.parametrize("fun", ["file.read", "file.seek_read", "file.search", "file.contains", "sysctl.show"])
def test_no_call_tells_the_key_of_the_minion(machine, fun):
    path = str(machine.pki / "minion.pem")
    assert f"{fun} tells nothing of {path}: it holds secrets" in str(ask(machine, fun, path))
    assert ask(machine, "file.read", path=path) and ask(machine, "logrotate.get", "a", None, path)
    assert ask(machine, "file.contains", "/etc/fstab", "/dev/sda") is None, "that is only looked for"
    assert ask(machine, fun, str(machine.pki.parent / "seal.json")) is None
    assert ask(machine, "file.get_hash", path) is None


def test_nor_does_the_mine(machine):
    machine.opts["mine_functions"] = {"file.read": [str(machine.pki / "minion.pem")]}
    assert "it holds secrets" in str(ask(machine, "mine.update"))


def test_break_glass_lets_changes_through_and_each_fires_an_event(machine):
    granted = break_glass.apply_token(machine.opts, token(machine))
    assert granted.reason == "disk"
    assert ask(machine, "cmd.run", "id") is None
    assert machine.events[-1][0] == "immutable/changed"
    assert gate.counts()["changed"] == {"cmd.run": 1}


def with_another_key_in_its_first_line(pem: bytes, another: bytes) -> bytes:
    return another.replace(b"\n", b" ") + b"\n" + b"".join(pem.splitlines(keepends=True)[1:])


def test_a_key_in_the_lines_that_the_fingerprint_leaves_out_is_not_used(machine):
    private, public = key_pair()
    path = machine.pki / "minion_master.pub"
    before = pem_finger(str(path))
    path.write_bytes(with_another_key_in_its_first_line(PUBLIC, public))
    assert pem_finger(str(path)) == before
    with pytest.raises(CommandExecutionError, match="did not sign"):
        break_glass.apply_token(machine.opts, token(machine, private))


def test_a_clock_that_the_caller_chose_does_not_count(machine, monkeypatch):
    break_glass.apply_token(machine.opts, token(machine))
    monkeypatch.setattr(os, "readlink", lambda path: "time:[4026532337]")
    assert ask(machine, "cmd.run", "id") is not None


@pytest.mark.parametrize("name", ["counts.json", "glass", "challenge.json"])
def test_a_pipe_in_place_of_a_file_blocks_no_call(machine, name):
    machine.run.mkdir(exist_ok=True)
    os.mkfifo(machine.run / name)
    assert "cmd.run" in str(ask(machine, "cmd.run", "id"))
    assert gate.counts() == {} or name != "counts.json"
    with pytest.raises(CommandExecutionError):
        break_glass.apply_token(machine.opts, "a.b")


@pytest.mark.parametrize("text", ['{"refused": 5}', "[]", "{", "[" * 100_000])
def test_damaged_counts_change_no_answer(machine, text):
    machine.run.mkdir()
    (machine.run / "counts.json").write_text(text)
    assert "guard of this machine is damaged" not in str(ask(machine, "cmd.run", "id"))
    assert isinstance(gate.counts(), dict)


AFTERWARDS: list[tuple[str, Callable[[SimpleNamespace], Any]]] = [
    ("its time is over", lambda machine: setattr(machine, "now", 160.0)),
    ("the machine has rebooted", lambda machine: setattr(machine, "boot", "boot-b")),
    ("it was closed", lambda machine: break_glass.end()),
    ("the key is another", lambda machine: (machine.pki / "minion_master.pub").write_bytes(key_pair()[1])),
    ("config names another key", lambda machine: machine.opts.update(pki_dir="/nowhere")),
    ("its token was forged", lambda machine: (machine.run / "glass").write_text(token(machine, key_pair()[0]))),
    ("its token is no text", lambda machine: (machine.run / "glass").write_bytes(b"\xff\xfe")),
]


@pytest.mark.parametrize("afterwards", [pytest.param(each, id=name) for name, each in AFTERWARDS])
def test_break_glass_ends_when(machine, afterwards):
    break_glass.apply_token(machine.opts, token(machine))
    afterwards(machine)
    assert ask(machine, "cmd.run", "id") is not None


def test_a_token_counts_once(machine):
    once = token(machine)
    break_glass.apply_token(machine.opts, once)
    break_glass.end()
    with pytest.raises(CommandExecutionError, match="does not answer the last challenge"):
        break_glass.apply_token(machine.opts, once)
    assert ask(machine, "cmd.run", "id") is not None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"machine": "web-2"}, "is for web-2", id="another machine"),
        pytest.param({"nonce": "n"}, "does not answer the last challenge", id="another nonce"),
        pytest.param({"until": 500.0}, "does not answer the last challenge", id="a later end than was asked for"),
        pytest.param({"private": key_pair()[0]}, "did not sign", id="another master"),
    ],
)
def test_another_token_opens_nothing(machine, changed, why):
    with pytest.raises(CommandExecutionError, match=why):
        break_glass.apply_token(machine.opts, token(machine, **changed))


def test_a_later_challenge_outdates_an_earlier_one(machine):
    first = token(machine)
    break_glass.challenge(60)
    with pytest.raises(CommandExecutionError, match="does not answer the last challenge"):
        break_glass.apply_token(machine.opts, first)


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, float("nan")])
def test_a_ttl_has_a_lower_and_an_upper_bound(machine, ttl):
    with pytest.raises(CommandExecutionError, match="ttl"):
        break_glass.challenge(ttl)


def test_a_machine_says_what_no_token_opens(machine):
    assert "/var, /run, /tmp, /srv/data" in break_glass.challenge(60)["cannot"][0]


def test_a_host_without_a_seal_has_no_break_glass(machine):
    Path(seal.SEAL_PATH).unlink()
    with pytest.raises(CommandExecutionError, match="not sealed"):
        break_glass.challenge(60)


@pytest.mark.parametrize("executor", [direct_call, splay, sudo])
@pytest.mark.parametrize("fun", ["test.ping", "immutable.status", "cmd.run"])
def test_a_damaged_library_refuses_all_but_the_functions_that_report_it(machine, monkeypatch, executor, fun):
    monkeypatch.setattr(gate, "refusal", lambda *_: 1 / 0)
    found = direct_call.refusal({}, {"fun": fun}, lambda: None, [], {})
    assert (found is None) == (fun in direct_call.WITHOUT_GUARD)
    monkeypatch.setattr(executor, "SEAL_PATH", seal.SEAL_PATH)
    if found:
        assert found == "sealed: the guard of this machine is damaged (ZeroDivisionError: division by zero); " + (
            "replace the machine"
        )
        with pytest.raises(CommandExecutionError, match="is damaged"):
            executor.execute({}, {"fun": fun}, lambda: None, [], {})


# Whole jobs

JOB = {"user": "ada", "jid": "7", "tgt": "web-*", "ret": ""}


def receive(machine: SimpleNamespace, fun: str, *args: Any, **fields: Any) -> str | None:
    return gate.refusal(machine.opts, {**JOB, **fields}, fun, args, {})


def test_a_job_that_the_intake_refused_is_refused_whatever_it_calls(machine, monkeypatch):
    monkeypatch.setattr(intake, "judges", True)
    assert receive(machine, "test.ping") is None
    said = receive(machine, "test.ping", immutable_refused="the returner 'x' would run past the guard")
    assert str(said).startswith("sealed: image web@3f2a9c1d04be of fleet shop: the returner 'x'")
    [(tag, _)] = machine.events
    assert tag == "immutable/refused" and gate.counts() == {"refused": {"test.ping": 1}}


def test_broken_glass_opens_no_such_job(machine, monkeypatch):
    monkeypatch.setattr(intake, "judges", True)
    break_glass.apply_token(machine.opts, token(machine))
    assert receive(machine, "cmd.run", "id") is None
    assert receive(machine, "cmd.run", "id", immutable_refused="its job id is none") is not None


def test_a_minion_that_does_not_judge_whole_jobs_says_so_and_answers_only_what_manages_it(machine, monkeypatch):
    monkeypatch.setattr(intake, "judges", False)
    assert "restart it" in str(receive(machine, "grains.items"))
    assert receive(machine, "immutable.status") is receive(machine, "test.ping") is None
    assert ask(machine, "grains.items") is None, "salt-call takes no job"


def test_only_units_of_the_image_are_operated(machine, monkeypatch):
    monkeypatch.setattr(gate.os.path, "isdir", lambda path: True)
    monkeypatch.setattr(gate.units, "foreign", lambda name: "/run/systemd/system/evil.service")
    assert "unlike /run/systemd/system/evil.service" in str(ask(machine, "service.start", "evil"))
    assert ask(machine, "service.status", "evil") is None


def test_a_name_that_is_missing_is_left_to_salt(machine, monkeypatch):
    monkeypatch.setattr(gate.os.path, "isdir", lambda path: True)
    monkeypatch.setattr(gate.units, "foreign", lambda name: f"{name}.service")
    assert ask(machine, "service.restart", no_block=True) is None
    assert "unlike None.service" in str(ask(machine, "service.restart", None)), "Salt makes text of it"
    assert "unlike None.service" in str(ask(machine, "service.restart", name=None))


def test_a_unit_is_not_operated_by_another_name_either(machine, monkeypatch):
    monkeypatch.setattr(gate.os.path, "isdir", lambda path: True)
    monkeypatch.setattr(gate.units, "unfit_alias", lambda name, stops: "umount.target belongs to systemd itself")
    assert "service.start of x: umount.target belongs to systemd" in str(ask(machine, "service.start", "x"))
