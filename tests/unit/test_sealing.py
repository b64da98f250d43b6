"""Sealing a minion that runs, undoing it, and what a machine says of its seal."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import adoption, executors
from saltext.immutable.guard import intake, seal
from saltext.immutable.guard import status as guard_status

OURS = str(Path(executors.__file__).parent / "direct_call.py")
DIGEST = "ab" * 32


@pytest.fixture
def pet(tmp_path, monkeypatch) -> SimpleNamespace:
    """A minion that runs, without systemd, whose files are all below tmp_path."""
    monkeypatch.setattr(seal, "SEAL_PATH", str(tmp_path / "etc/immutable/seal.json"))
    monkeypatch.setattr(seal, "MACHINE_PATH", str(tmp_path / "machine.conf"))
    monkeypatch.setattr(seal, "RUN_PATH", str(tmp_path / "run"))
    monkeypatch.setattr(adoption, "require_root", lambda: None)
    monkeypatch.setattr(adoption, "systemd_here", lambda: False)
    monkeypatch.setattr(adoption.drift, "baseline", lambda recipe, policy: DIGEST)
    monkeypatch.setattr(adoption, "_SYSTEMD", tmp_path / "systemd")
    pki = tmp_path / "pki"
    pki.mkdir()
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (pki / "minion_master.pub").write_bytes(pem)
    found = SimpleNamespace(called=[], config=tmp_path / "salt/minion.d" / adoption.CONFIG, pki=pki)
    found.opts = {"id": "pet", "pki_dir": str(pki), "hash_type": "sha256", "config_dir": str(tmp_path / "salt")}
    found.opts["schedule"] = {}

    def call(fun: str, *args: Any, **kwargs: Any) -> None:
        found.called.append(fun)

    found.call = call
    found.seal = lambda **given: adoption.seal_minion(found.opts, adoption.policy(given), call)
    return found


def test_a_minion_is_sealed_at_once_and_for_every_start(pet):
    done = pet.seal(mutable=["/srv/uploads"])
    assert seal.read(seal.SEAL_PATH) == done
    assert (done.name, done.read_only, done.policy["mutable"]) == ("adopted@abababababab", False, ["/srv/uploads"])
    assert "enabled: False" in pet.config.read_text()
    assert pet.called == ["schedule.disable", "saltutil.refresh_modules"]
    assert seal.pinned(done)["id"] == "pet"


def test_unsealing_takes_all_of_it_away(pet):
    pet.seal()
    adoption.unseal_minion(pet.opts, pet.call)
    assert seal.read(seal.SEAL_PATH) is None
    assert not pet.config.exists()
    assert pet.called[-1] == "schedule.enable"


def test_a_scheduler_that_was_off_stays_off(pet):
    pet.opts["schedule"] = {"enabled": False}
    pet.seal()
    adoption.unseal_minion(pet.opts, pet.call)
    assert pet.called == ["saltutil.refresh_modules"]


def test_what_cannot_be_sealed_stays_as_it_was(pet, monkeypatch):
    monkeypatch.setattr(adoption, "_commit", lambda found: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        pet.seal()
    assert not pet.config.exists()
    assert seal.read(seal.SEAL_PATH) is None
    assert pet.called == ["schedule.disable", "schedule.enable"]


def test_a_seal_that_cannot_be_read_back_is_not_written(pet):
    with pytest.raises(seal.SealDamaged):
        adoption._commit(seal.Seal("", "web", True, 1.0, "3008", "1", {"guard": {}}))
    assert list(Path(seal.SEAL_PATH).parent.iterdir()) == []


def test_a_minion_that_never_met_its_master_is_not_sealed(pet):
    (pet.pki / "minion_master.pub").unlink()
    with pytest.raises(CommandExecutionError, match="no key of its master"):
        pet.seal()


@pytest.mark.parametrize(
    ("opts", "executor", "message"),
    [
        pytest.param({}, OURS, None, id="nothing in the way"),
        pytest.param({}, "/usr/lib/salt/executors/direct_call.py", "not through the guard", id="core's executor"),
        pytest.param({"master_alive_interval": 30}, OURS, "never check whether", id="a scheduled check of the master"),
        pytest.param({"file_client": "local"}, OURS, "break-glass", id="no master"),
        pytest.param({"grains_cache": True}, OURS, "an earlier start", id="grains of an earlier start"),
        pytest.param({"disable_executors": ["direct_call"]}, OURS, "would not load direct_call", id="no executor"),
    ],
)
def test_obstacles(opts, executor, message):
    found = adoption.obstacles(opts, executor)
    assert found == [] if message is None else message in found[0]


def test_a_policy_that_is_none_is_named(pet):
    with pytest.raises(SaltInvocationError, match="immutable.seal:mutable: .srv. is not an absolute path"):
        adoption.policy({"mutable": ["srv"]})
    with pytest.raises(SaltInvocationError, match="immutable.seal:at_launch: no such key"):
        adoption.policy({"at_launch": ["x"]})


# What immutable.status returns


def status(pet: SimpleNamespace, pillar: dict[str, Any] | None = None, **opts: Any) -> dict[str, Any]:
    return guard_status.status({**pet.opts, "schedule": {"enabled": False}, **opts}, pillar or {})


def test_an_unsealed_minion_says_so(pet):
    assert status(pet) == {"sealed": False, "problems": []}


def test_one_answer_tells_it_all(pet):
    pet.seal()
    jobs = {"backup": {"function": "cmd.run", "hours": 1}, "enabled": True}
    found = status(pet, {"schedule": jobs}, schedule={"enabled": False, "__mine_interval": {"function": "mine.update"}})
    assert (found["sealed"], found["adopted"], found["image"]) == (True, True, "adopted@abababababab")
    assert found["stopped_jobs"] == {"backup": "cmd.run", "__mine_interval": "mine.update"}
    assert (found["glass"], found["counts"], found["problems"]) == (None, {}, [])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        pytest.param({"schedule": {}}, "the scheduler runs", id="a schedule"),
        pytest.param({"schedule": {"enabled": True}}, "the scheduler runs", id="a schedule that was enabled again"),
        pytest.param({"master_alive_interval": 5}, "the master is never checked", id="a check that never runs"),
        pytest.param({"grains_cache": True}, "the config sets grains_cache", id="grains of an earlier start"),
        pytest.param({"disable_grains": ["immutable"]}, "sets disable_grains", id="the grain is left out"),
        pytest.param({"disable_modules": 1}, "sets disable_modules: it is 1", id="a list that is none"),
        pytest.param({"disable_executors": ["sudo"]}, "would not load sudo", id="an executor is left out"),
        pytest.param({"whitelist_modules": ["test"]}, "sets whitelist_modules", id="the module is not in a list"),
        pytest.param({"__cli": "salt-minion"}, "does not judge whole jobs", id="a minion that judges no jobs"),
    ],
)
def test_what_weakens_the_guard_is_a_problem(pet, opts, message, monkeypatch):
    monkeypatch.setattr(intake, "judges", False)
    pet.seal()
    [problem] = status(pet, **opts)["problems"]
    assert message in problem


@pytest.mark.parametrize(
    "name",
    [
        "direct_call.py", "direct_call.pyc", "direct_call.so", "direct_call/__init__.py", "direct_call/__init__.pyc",
        "__pycache__/direct_call.cpython-311.pyc",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["extension_modules", "module_dirs", "executor_dirs"])
def test_executors_that_salt_takes_before_the_guard_are_a_problem(pet, tmp_path, key, name):
    pet.seal()
    folder = tmp_path / "more/executors"
    (folder / name).parent.mkdir(parents=True)
    assert not status(pet, module_dirs=[str(folder.parent)])["problems"], "an empty folder has none"
    (folder / name).write_text("")
    parent = str(folder.parent)
    value = {"extension_modules": parent, "module_dirs": [parent], "executor_dirs": [str(folder)]}
    [problem] = status(pet, **{key: value[key]})["problems"]
    assert problem == f"Salt's loader takes the executors of {folder} before the guard; remove that folder"


def test_a_damaged_seal_is_still_a_seal(pet):
    place = Path(seal.SEAL_PATH)
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"image": "x"}))
    found = status(pet)
    assert found["sealed"]
    assert "is damaged" in found["problems"][0]
