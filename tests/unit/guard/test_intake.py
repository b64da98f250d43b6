"""A minion judges each job as it receives it, before Salt writes a file of its name."""

from __future__ import annotations

import asyncio
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from salt.utils.jid import is_jid

from saltext.immutable import loader_dirs
from saltext.immutable.guard import intake, seal
from saltext.immutable.guard.envelope import REFUSED

POLICY = {"guard": {"allow": [], "deny": [], "dry_runs": True, "returners": ["mysql"]}}
SEAL = {"image": "a" * 64, "recipe": "web", "read_only": True, "created": 1.0, "salt": "3008", "pack": "1"}
JOB = {"fun": "test.ping", "arg": [], "tgt": "*", "jid": "20261129200000123456", "ret": "highstate"}


class FakeMinion:
    """Salt's minion, as far as it receives jobs: it keeps what it would act on."""

    def __init__(self):
        self.jobs = []

    async def _handle_decoded_payload(self, data):
        self.jobs.append(data)


@pytest.fixture
def minion(monkeypatch):
    """A minion of a class of its own, in which nothing is installed yet."""
    kind = type("Minion", (FakeMinion,), {"_handle_decoded_payload": FakeMinion._handle_decoded_payload})
    module = ModuleType("salt.minion")
    module.Minion = kind
    monkeypatch.setitem(sys.modules, "salt.minion", module)
    monkeypatch.setattr(intake, "installed", False)
    monkeypatch.setattr(intake, "judges", False)
    return kind()


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    path = tmp_path / "seal.json"
    path.write_text(json.dumps({**SEAL, "policy": POLICY}))
    for module in (seal, intake):
        monkeypatch.setattr(module, "SEAL_PATH", str(path))
    return path


def received(minion, job):
    asyncio.run(minion._handle_decoded_payload(job))
    return minion.jobs[-1]


def test_a_job_is_judged_before_salt_acts_on_it(minion, sealed):
    intake.install()
    assert "highstate" in received(minion, JOB)[REFUSED]
    assert received(minion, JOB)["ret"] == ""
    assert received(minion, {**JOB, "ret": "mysql"}) == {**JOB, "ret": "mysql"}


def test_it_is_installed_once(minion, sealed):
    intake.install()
    handle = type(minion)._handle_decoded_payload
    intake.install()
    assert type(minion)._handle_decoded_payload is handle and intake.installed


def test_salts_loader_installs_it_whatever_else_it_loads(minion, sealed):
    assert "grains" in loader_dirs() and intake.installed
    assert "highstate" in received(minion, JOB)[REFUSED]


def test_a_library_that_cannot_be_imported_takes_no_folder_from_salts_loader(minion, monkeypatch):
    monkeypatch.setattr(intake, "install", lambda: 1 / 0)
    assert "executors" in loader_dirs()


def test_a_process_of_a_job_that_nobody_judged_does_not_say_that_it_was(minion, sealed):
    loader_dirs()
    assert not intake.judges, "this job came before"
    received(minion, JOB)
    assert intake.judges


def test_a_minion_that_is_not_sealed_acts_as_ever(minion, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "SEAL_PATH", str(tmp_path / "none"))
    intake.install()
    job = {**JOB, "jid": "../x"}
    assert received(minion, job) is job


def test_a_damaged_seal_allows_no_returner(minion, sealed):
    sealed.write_text("{")
    intake.install()
    assert "'mysql'" in received(minion, {**JOB, "ret": "mysql"})[REFUSED]


def test_a_seal_of_an_older_pack_allows_none(minion, sealed):
    sealed.write_text(json.dumps({**SEAL, "policy": {"guard": {}}}))
    intake.install()
    assert REFUSED in received(minion, JOB)


@pytest.mark.parametrize("job", [None, "test.ping", ["test.ping"], 7])
def test_what_is_no_job_calls_nothing(minion, sealed, job):
    intake.install()
    found = received(minion, job)
    assert (found["fun"], found["arg"], found["ret"]) == ("test.ping", [], "") and found[REFUSED]


def test_a_process_without_a_minion_is_left_alone(monkeypatch):
    monkeypatch.setattr(intake, "installed", False)
    monkeypatch.setattr(intake, "sys", SimpleNamespace(modules={}))
    intake.install()
    assert not intake.installed


def test_a_new_id_is_one_that_salt_makes(minion, sealed):
    intake.install()
    assert is_jid(received(minion, {**JOB, "jid": "../x"})["jid"])


def test_salt_has_the_method_through_which_a_minion_takes_each_job():
    import inspect

    import salt.minion

    found = inspect.signature(inspect.unwrap(salt.minion.Minion._handle_decoded_payload))
    assert list(found.parameters) == ["self", "data"]
