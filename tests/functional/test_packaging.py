"""The pack in a real Salt: as a wheel, as an editable install, merely synced; and its guard in each call.

Needs uv. What seals a machine needs root and unshare: the seal is put over ``/etc`` in a mount namespace
of its own, so that nothing of it reaches this host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import attr
import pytest
import salt.version
from saltfactories.cli.call import SaltCall
from saltfactories.daemons.minion import SaltMinion
from saltfactories.manager import FactoriesManager

from tests.support.estate import Answer
from tests.support.factories import Master, Minion, as_typed, run

ROOT = Path(__file__).parents[2]
LOADER_KINDS = ("grains", "modules", "runners", "states")
STEMS = {kind: sorted(path.stem for path in (ROOT / f"_{kind}").glob("[!_]*.py")) for kind in LOADER_KINDS}
UV = ["uv"] if shutil.which("uv") else [sys.executable, "-m", "uv"]

PROBE = """
import json, sys
import salt.config, salt.loader
opts = salt.config.minion_config(sys.argv[1] + "/minion")
opts["grains"] = salt.loader.grains(opts)
modules = salt.loader.minion_mods(opts)
loaders = {
    "modules": modules,
    "runners": salt.loader.runner(opts),
    "states": salt.loader.states(opts, modules, {}, {}),
}
print(json.dumps({
    "names": {kind: list(loader) for kind, loader in loaders.items()},
    "missing": {kind: {name: str(why) for name, why in loader.missing_modules.items()}
                for kind, loader in loaders.items()},
    "grain": opts["grains"].get("immutable"),
    "executor": salt.loader.executors(opts, modules)["direct_call.execute"].__code__.co_filename,
}))
"""

SEALED = """
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay none -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
mkdir -p /etc/immutable /etc/salt/minion.d
printf %s "$2" > /etc/immutable/seal.json
printf %s "$3" > /etc/salt/minion.d/zzz-machine.conf
shift 3
exec "$@"
"""
SEAL = {
    "image": "3f2a9c1d04be" + "0" * 52,
    "recipe": "web",
    "read_only": False,
    "created": 1700000000.5,
    "salt": "3008.3",
    "pack": "0.1.0",
    "policy": {"guard": {"allow": [], "deny": [], "dry_runs": True}},
}
CONFIG = {"file_client": "local", "enable_fqdns_grains": False, "schedule": {"enabled": False}}
MACHINE = {"id": "web-1", "immutable_machine": {"fleet": "web", "generation": 3, "installation": "ab12"}}


@dataclass(frozen=True)
class Salt:
    """A Salt of its own in ``venv``, and a minion of it with all that it writes below ``home``."""

    venv: Path
    home: Path
    factories: FactoriesManager
    minion: SaltMinion

    def probe(self) -> dict:
        """What its loaders find; asked from a place where our checkout is not importable."""
        command = [self.venv / "bin" / "python", "-c", PROBE, self.minion.config_dir]
        done = subprocess.run(command, cwd=self.home, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def call(self, *args: str, factory_class: type[SaltCall] = SaltCall) -> Answer:
        cli = as_typed(self.minion.salt_call_cli(factory_class=factory_class, cwd=self.home))
        return run(cli, "--local", *args)

    def returned(self, *args: str) -> object:
        answer = self.call(*args)
        assert answer.ok, answer
        return answer.data["local"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what we ship, so that building leaves nothing behind."""
    copy = tmp_path_factory.mktemp("checkout") / "saltext-immutable"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests")
    return Path(shutil.copytree(ROOT, copy, ignore=unwanted))


@pytest.fixture(scope="module")
def install(tmp_path_factory, salt_factories):
    """Return a function that makes a Salt with further requirements beside it; ``config`` is more for its minion."""

    def made(*requirements: str, **config: object) -> Salt:
        place = tmp_path_factory.mktemp("salt")
        subprocess.run([*UV, "venv", "-q", "--python", sys.executable, place / "venv"], check=True)
        target = ["--python", place / "venv" / "bin" / "python"]
        pinned = f"salt=={salt.version.__version__}"
        subprocess.run([*UV, "pip", "install", "-q", *target, pinned, *requirements], check=True)
        home = place / "home"
        factories = attr.evolve(salt_factories, root_dir=place / "factories", scripts_dir=place / "venv/bin")
        minion = factories.salt_minion_daemon(
            "packaging", defaults={"root_dir": str(home)}, overrides={**CONFIG, **config}, factory_class=Minion
        )
        return Salt(place / "venv", home, factories, minion)

    return made


@pytest.fixture(scope="module")
def wheel(checkout, install):
    out = checkout.parent / "dist"
    subprocess.run([*UV, "build", "-q", "--wheel", "--out-dir", out, checkout], check=True)
    (built,) = out.glob("*.whl")
    return install(f"saltext-immutable[master] @ file://{built}")


@pytest.fixture(scope="module")
def editable(checkout, install):
    return install("-e", f"{checkout}[master]")


@pytest.fixture(scope="module")
def synced(checkout, install):
    """A Salt without the pack whose file root is our repository."""
    return install(file_roots={"base": [str(checkout)]})


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request):
    return request.getfixturevalue(request.param)


def test_an_installed_pack_loads_every_kind_of_module(installed):
    found = installed.probe()
    assert "immutable.status" in found["names"]["modules"]
    assert found["grain"] == {"sealed": False}
    assert found["executor"].endswith("immutable/executors/direct_call.py")
    for kind in ("modules", "runners", "states"):
        for stem in STEMS[kind]:
            loaded = any(name.startswith(f"{stem}.") for name in found["names"][kind])
            why = found["missing"][kind].get(stem, "")
            assert loaded or (why and "saltext" not in why), f"_{kind}/{stem}.py: {why or 'not found'}"


def test_an_installed_pack_leaves_a_host_without_a_seal_alone(installed):
    assert installed.returned("immutable.status") == {"sealed": False, "problems": []}
    assert installed.returned("cmd.run", "echo done") == "done"


def test_where_it_is_merely_synced_the_minion_works_as_before(synced):
    brought = synced.returned("saltutil.sync_all")
    assert brought["executors"] == []
    for kind in ("grains", "modules", "states"):
        assert {f"{kind}.{stem}" for stem in STEMS[kind]} <= set(brought[kind])
    assert not (synced.home / "cache/extmods/executors").exists()
    assert synced.returned("test.ping") is True
    assert synced.returned("cmd.run", "echo done") == "done"
    assert synced.returned("grains.get", "immutable") == {"sealed": False}
    refused = synced.call("immutable.status")
    assert refused.returncode != 0
    assert "pip install saltext-immutable" in refused.stdout + refused.stderr


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="a seal over /etc needs root and unshare"
)


def over_etc(place: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """The command that runs ``command`` where ``/etc`` says that it runs on a machine of fleet ``web``."""
    inside = ["sh", place, json.dumps(SEAL), json.dumps(MACHINE), *command]
    return ["unshare", "--mount", "--propagation=private", "sh", "-euc", SEALED, *inside]


def sealed_class(factory: type, place: Path) -> type:
    """Return a factory whose program runs on a machine of fleet ``web``."""

    class Sealed(factory):
        def cmdline(self, *args: str, **more: object) -> list[str | Path]:
            return over_etc(place, super().cmdline(*args, **more))

    return Sealed


@pytest.fixture
def sealed(wheel, tmp_path):
    """Return a function that makes a call with salt-call on a machine of fleet ``web``."""
    return partial(wheel.call, factory_class=sealed_class(SaltCall, tmp_path))


@needs_root
@pytest.mark.parametrize(
    "call",
    [
        ["state.highstate"],
        ["state.apply", "web", "test=1"],
        ["state.sls", "web"],
        ["state.high", "{}", "test=True"],
        ["pkg.install", "nginx"],
        ["file.write", "/etc/immutable/changed", "x"],
        ["cmd.run", "echo done"],
        ["--module-executors=[direct_call]", "cmd.run", "echo done"],
    ],
    ids=" ".join,
)
def test_a_sealed_machine_refuses_with_a_sentence_and_an_exit_code(sealed, call):
    refused = sealed(*call)
    assert refused.returncode == 1
    assert refused.stdout == ""
    fun = next(word for word in call if not word.startswith("-"))
    assert f"sealed: image web@3f2a9c1d04be of fleet web: {fun} would change this machine" in refused.stderr
    assert "rebuild the fleet instead (salt-run fleet.rebuild web)" in refused.stderr


@needs_root
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(["test.ping"], True, id="it is there"),
        pytest.param(["grains.get", "immutable:digest"], SEAL["image"], id="it says which image"),
        pytest.param(["grains.get", "immutable:generation"], 3, id="and which generation"),
        pytest.param(["file.file_exists", "/etc/immutable/seal.json"], True, id="files are looked at"),
        pytest.param(["saltutil.find_job", "20260101000000000000"], {}, id="the master finds its jobs"),
    ],
)
def test_a_sealed_machine_answers_what_only_looks(sealed, call, expected):
    answer = sealed(*call)
    assert answer.returncode == 0, answer.stderr
    assert answer.data["local"] == expected


@needs_root
def test_a_sealed_machine_shows_what_states_would_change(sealed, tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    (tree / "web.sls").write_text(json.dumps({f"{tree}/made": {"file.managed": [{"contents": "x"}]}}))
    answer = sealed(f"--file-root={tree}", "state.apply", "web", "test=True")
    assert answer.returncode == 0, answer.stdout
    [state] = answer.data["local"].values()
    assert (state["result"], (tree / "made").exists()) == (None, False)
    refused = sealed(f"--file-root={tree}", "state.highstate", "test=True")
    assert "state.highstate syncs custom modules first; set autoload_dynamic_modules: False" in refused.stderr


@pytest.fixture(scope="module")
def salt_cli(wheel, tmp_path_factory):
    """Return a function that calls ``salt`` on a master whose one minion, ``web-1``, is a sealed machine."""
    place = tmp_path_factory.mktemp("estate")
    (place / "over").mkdir()
    common = {"user": "root", "enable_fqdns_grains": False, "schedule": {"enabled": False}}
    master = wheel.factories.salt_master_daemon(
        "packaging-master",
        defaults={"root_dir": str(place / "master")},
        overrides={**common, "auto_accept": True, "worker_threads": 3},
        factory_class=Master,
    )
    minion = master.salt_minion_daemon(
        "web-1",
        defaults={"root_dir": str(place / "minion")},
        overrides={**common, "publish_port": master.config["publish_port"]},
        factory_class=sealed_class(Minion, place / "over"),
    )
    with master.started(), minion.started():
        yield lambda *args: run(as_typed(master.salt_cli()), *args, minion_tgt="web-1")


@needs_root
def test_a_sealed_machine_refuses_its_master(salt_cli):
    refused = salt_cli("state.highstate")
    assert refused.returncode != 0
    assert "sealed: image web@3f2a9c1d04be of fleet web: state.highstate would change" in refused.stdout


@needs_root
def test_in_a_job_of_several_functions_a_sealed_machine_judges_each(salt_cli):
    answer = salt_cli("test.ping,cmd.run,grains.get", ",echo done,immutable:image")
    found = answer.data["web-1"]
    assert answer.returncode != 0
    assert (found["test.ping"], found["grains.get"]) == (True, "web@3f2a9c1d04be")
    assert "cmd.run would change this machine" in found["cmd.run"]


@needs_root
def test_a_sealed_machine_tells_its_status(sealed):
    status = sealed("immutable.status").data["local"]
    assert (status["image"], status["fleet"], status["problems"]) == ("web@3f2a9c1d04be", "web", [])


def test_the_guard_knows_each_function_of_the_wheel_that_a_machine_answers(wheel):
    from saltext.immutable.guard.function_tables import OPERATE, READ
    from saltext.immutable.guard.policy import full_names
    from saltext.immutable.guard.refused_functions import CHANGE

    ours = {name for name in wheel.probe()["names"]["modules"] if name.startswith("immutable.")}
    known = {name for table in (READ, OPERATE, CHANGE) for name in full_names(table)}
    assert ours == {name for name in known if name.startswith("immutable.")}
