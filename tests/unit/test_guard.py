"""Which calls a machine that runs an image answers, and what it says to the others."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from saltext.immutable import guard, seal, standing
from saltext.immutable.executors import direct_call

DIGEST = "3f2a9c1d04be" + "0" * 52
SEAL = {
    "image": DIGEST,
    "recipe": "web",
    "read_only": True,
    "created": 1700000000.5,
    "salt": "3008.3",
    "pack": "0.1.0",
    "policy": {"guard": {"allow": [], "deny": [], "dry_runs": True}},
}
MACHINE = {"id": "web-1", "immutable_machine": {"fleet": "shop", "generation": 3, "installation": "ab12"}}
WEB = guard.Sealed("web@3f2a9c1d04be", "web", "shop")
ROOT = Path(__file__).parents[2]


def loaded(path: str) -> ModuleType:
    """A loader file as a module, as Salt's loader makes one."""
    spec = importlib.util.spec_from_file_location("loaded_" + Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose seal and machine file are ``host.seal`` and ``host.machine``; neither is there yet."""
    paths = SimpleNamespace(
        seal=tmp_path / "seal.json",
        machine=tmp_path / "machine.conf",
        grain=loaded("_grains/immutable.py"),
        module=loaded("_modules/immutable.py"),
    )
    for reader in (seal, paths.grain):
        monkeypatch.setattr(reader, "SEAL_PATH", str(paths.seal))
        monkeypatch.setattr(reader, "MACHINE_PATH", str(paths.machine))
    monkeypatch.setattr(direct_call, "SEAL_PATH", str(paths.seal))
    monkeypatch.setattr(seal, "RUN_PATH", str(tmp_path / "run"))
    monkeypatch.setattr(standing, "_root_is_writable", lambda: False)
    paths.module.__opts__, paths.module.__pillar__ = {"schedule": {"enabled": False}}, {}
    return paths


@pytest.fixture
def machine(host):
    """A machine of fleet ``shop``."""
    host.seal.write_text(json.dumps(SEAL))
    host.machine.write_text(json.dumps(MACHINE))
    return host


class Loaded:
    """What Salt's loader hands to an executor: it knows its own name."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *args, **kwargs):
        return "called", args, kwargs


def run(fun, *args, data=None, **kwargs):
    return direct_call.execute({}, {"fun": fun} if data is None else data, Loaded(fun), list(args), kwargs)


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "expected"),
    [
        pytest.param("test.ping", [], {}, "read", id="ping answers"),
        pytest.param("grains.items", [], {}, "read", id="grains are read"),
        pytest.param("grains.setval", ["a", 1], {}, "change", id="grains are not written"),
        pytest.param("immutable.status", [], {}, "read", id="the machine says what it is"),
        pytest.param("pkg.version", ["nginx"], {}, "read", id="packages are looked at"),
        pytest.param("pkg.install", ["nginx"], {}, "change", id="packages are not installed"),
        pytest.param("pkg.list_upgrades", [], {}, "change", id="nor is their database refreshed"),
        pytest.param("file.read", ["/etc/hosts"], {}, "read", id="files are read"),
        pytest.param("file.write", ["/etc/hosts", "x"], {}, "change", id="files are not written"),
        pytest.param("file.find", ["/etc"], {"delete": "f"}, "change", id="find deletes"),
        pytest.param("cmd.run", ["id"], {}, "change", id="a command can do anything"),
        pytest.param("cp.get_file", ["salt://a", "/b"], {}, "change", id="nothing is fetched"),
        pytest.param("service.restart", ["nginx"], {"no_block": True}, "operate", id="services restart"),
        pytest.param("service.restart", ["nginx"], {"unmask": True}, "change", id="units stay masked"),
        pytest.param("service.start", ["nginx", False, True], {}, "change", id="by position as well"),
        pytest.param("service.start", ["nginx"], {"__pub_jid": "1"}, "operate", id="Salt's own keywords"),
        pytest.param("service.enable", ["nginx"], {}, "change", id="what starts at boot is the image's"),
        pytest.param("mine.update", [], {"clear": True}, "operate", id="the mine is updated"),
        pytest.param("mine.update", [], {"mine_functions": {"cmd.run": ["id"]}}, "change", id="as configured"),
        pytest.param("mine.send", ["x"], {"mine_function": "cmd.run"}, "change", id="mine.send calls"),
        pytest.param("saltutil.find_job", ["1"], {}, "read", id="the master finds its jobs"),
        pytest.param("saltutil.kill_job", ["1"], {}, "operate", id="and ends them"),
        pytest.param("saltutil.refresh_pillar", [], {}, "operate", id="pillar is refreshed"),
        pytest.param("saltutil.sync_all", [], {}, "change", id="no code is brought in"),
        pytest.param("state.apply", ["nginx"], {"test": True}, "change", id="test=True runs Jinja"),
        pytest.param("network.get_route", ["1.1.1.1"], {}, "change", id="get_route has a shell"),
        pytest.param("house.custom", [], {}, "change", id="the unknown is a change"),
        pytest.param("test", [], {}, "change", id="half a name is unknown"),
        pytest.param("test.", [], {}, "change", id="so is a module alone"),
        pytest.param("['test.ping', 'state.apply']", [], {}, "change", id="so is a list"),
    ],
)
def test_the_class_of_a_call(fun, args, kwargs, expected):
    assert guard.classify(fun, args, kwargs) == expected
    assert (guard.refusal(fun, args, kwargs, WEB) is None) == (expected != "change")


def sealed(**guard_of_the_recipe):
    return guard.Sealed("web@3f2a9c1d04be", "web", "shop", **guard_of_the_recipe)


@pytest.mark.parametrize(
    ("fun", "recipes", "expected"),
    [
        pytest.param("service.stop", {"deny": ("service.*",)}, "change", id="deny refuses what the tables allow"),
        pytest.param("service.stop", {"deny": ("service.start",)}, "operate", id="and nothing else"),
        pytest.param("shop.close", {"allow": ("shop.*",)}, "operate", id="allow opens the unknown, on record"),
        pytest.param("pkg.install", {"allow": ("pkg.i*",)}, "operate", id="and what changes"),
        pytest.param("grains.items", {"allow": ("*.*",)}, "read", id="what reads still only reads"),
        pytest.param("shop.close", {"allow": ("shop.*",), "deny": ("*.close",)}, "change", id="deny wins"),
        pytest.param("test.ping", {"deny": ("*.*",)}, "read", id="a machine always answers its ping"),
        pytest.param("saltutil.find_job", {"deny": ("saltutil.*",)}, "read", id="and is asked for its jobs"),
    ],
)
def test_a_recipe_extends_the_tables(fun, recipes, expected):
    assert guard.classify(fun, [], {}, sealed(**recipes)) == expected
    assert (guard.refusal(fun, [], {}, sealed(**recipes)) is None) == (expected != "change")


@given(st.text())
def test_what_is_in_no_table_is_refused(fun):
    module, _, function = fun.partition(".")
    listed = f"{guard.READ.get(module, '')} {guard.OPERATE.get(module, '')}".split()
    assert function in listed or guard.refusal(fun, [], {}, WEB)


def test_a_function_has_one_class_and_no_trap_is_allowed():
    read, operate = (
        {f"{module}.{function}" for module, names in table.items() for function in names.split()}
        for table in (guard.READ, guard.OPERATE)
    )
    assert not read & operate
    assert set(guard.ONLY) <= read | operate
    assert not [fun for fun in read | operate if "could change" in guard._why(fun, WEB)]


@pytest.mark.parametrize(
    ("fun", "sealed", "sentence"),
    [
        pytest.param(
            "state.highstate",
            guard.Sealed("web@3f2a9c1d04be", "web", "web"),
            "sealed: image web@3f2a9c1d04be of fleet web: state.highstate would change this machine; "
            "rebuild the fleet instead (salt-run fleet.rebuild web)",
            id="a machine of a fleet names the fleet's command",
        ),
        pytest.param(
            "pkg.install",
            guard.Sealed("web@3f2a9c1d04be", "web"),
            "sealed: image web@3f2a9c1d04be: pkg.install would change this machine; "
            "bake and roll the recipe instead (salt-run image.bake web)",
            id="a machine without a fleet names the recipe's",
        ),
        pytest.param(
            "state.show_sls",
            WEB,
            "sealed: image web@3f2a9c1d04be of fleet shop: state.show_sls could change this machine: it "
            "renders Jinja, which runs commands; rebuild the fleet instead (salt-run fleet.rebuild shop)",
            id="what looks harmless says why it is not",
        ),
        pytest.param(
            "house.custom",
            WEB,
            "sealed: image web@3f2a9c1d04be of fleet shop: house.custom is not known to leave this machine "
            "as it is; rebuild the fleet instead (salt-run fleet.rebuild shop)",
            id="of the unknown nothing is claimed",
        ),
        pytest.param(
            "service.stop",
            guard.Sealed("web@3f2a9c1d04be", "web", deny=("service.st*",)),
            "sealed: image web@3f2a9c1d04be: its recipe denies service.stop (guard: deny: service.st*); "
            "bake and roll the recipe instead (salt-run image.bake web)",
            id="what the recipe denies names the recipe's word",
        ),
    ],
)
def test_a_refusal_names_the_image_and_what_to_do_instead(fun, sealed, sentence):
    assert guard.refusal(fun, [], {}, sealed) == sentence


def test_without_a_seal_every_call_goes_straight_through(host):
    assert run("state.apply", "nginx", test=True) == ("called", ("nginx",), {"test": True})


def test_without_a_seal_nothing_is_imported(host, monkeypatch):
    for module in ("saltext.immutable.guard", "saltext.immutable.seal"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run("state.apply")[0] == "called"


def test_a_sealed_machine_answers_and_refuses(machine):
    assert run("service.restart", "nginx") == ("called", ("nginx",), {})
    with pytest.raises(CommandExecutionError, match="web@3f2a9c1d04be of fleet shop: state.apply would"):
        run("state.apply")


def test_in_a_job_of_several_functions_each_is_judged_by_its_own_name(machine, monkeypatch):
    context = {"retcode": 0}
    monkeypatch.setattr(direct_call, "__context__", context, raising=False)
    job = {"fun": ["test.ping", "state.apply"]}
    assert run("test.ping", data=job)[0] == "called"
    assert context == {"retcode": 0}
    assert "state.apply would change this machine" in run("state.apply", data=job)
    assert context == {"retcode": 1}


def test_a_function_without_a_name_goes_by_the_job(machine):
    assert direct_call.execute({}, {"fun": "test.ping"}, lambda: "pong", [], {}) == "pong"
    with pytest.raises(CommandExecutionError):
        direct_call.execute({}, {}, lambda: "pong", [], {})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", json.dumps({**SEAL, "image": 3}), json.dumps({"recipe": "web"}), b"\xff"],
    ids=["empty", "torn", "a list", "null", "a wrong type", "a key missing", "no text"],
)
def test_a_damaged_seal_refuses_all_but_what_tells_of_it(machine, content):
    machine.seal.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run("test.ping")[0] == "called"
    assert run("immutable.status")[0] == "called"
    with pytest.raises(CommandExecutionError, match="sealed: .*seal.json is damaged: .*replace this machine"):
        run("grains.items")
    assert machine.module.status()["sealed"]
    assert "is damaged" in machine.module.status()["problems"][0]


def test_a_damaged_machine_file_is_a_damaged_seal(machine):
    machine.machine.write_text("{")
    with pytest.raises(CommandExecutionError, match="machine.conf is damaged"):
        run("grains.items")
    assert machine.grain.immutable()["immutable"]["damaged"].startswith("JSONDecodeError")


def test_a_seal_that_leads_nowhere_is_damaged(host):
    host.seal.symlink_to(host.seal.with_name("gone"))
    with pytest.raises(CommandExecutionError, match="leads nowhere"):
        run("grains.items")
    assert "damaged" in host.grain.immutable()["immutable"]
    assert "leads nowhere" in host.module.status()["problems"][0]


def test_a_machine_says_which_image_it_runs(machine):
    said = {
        "sealed": True,
        "image": "web@3f2a9c1d04be",
        "digest": DIGEST,
        "recipe": "web",
        "fleet": "shop",
        "generation": 3,
    }
    assert machine.grain.immutable() == {"immutable": said}
    status = machine.module.status()
    assert {key: status[key] for key in said} == said
    assert (status["problems"], status["installation"], status["salt"]) == ([], "ab12", "3008.3")


def test_a_machine_that_no_fleet_launched_has_no_fleet(machine):
    machine.machine.unlink()
    assert machine.grain.immutable()["immutable"]["fleet"] is None
    assert machine.module.status()["generation"] is None


def test_a_host_without_a_seal_says_so(host):
    assert host.grain.immutable() == {"immutable": {"sealed": False}}
    assert host.module.status() == {"sealed": False, "problems": []}


@given(content=st.binary() | st.sampled_from([b"{}", b'{"recipe": 1, "image": 2}', b"3", b'"x"']))
def test_a_grain_never_raises(tmp_path_factory, content):
    grain = loaded("_grains/immutable.py")
    grain.SEAL_PATH = str(tmp_path_factory.getbasetemp() / "seal-of-any-kind")
    Path(grain.SEAL_PATH).write_bytes(content)
    assert grain.immutable()["immutable"]["sealed"]


def test_all_mean_the_same_files():
    grain = loaded("_grains/immutable.py")
    assert direct_call.SEAL_PATH == seal.SEAL_PATH == grain.SEAL_PATH
    assert seal.MACHINE_PATH == grain.MACHINE_PATH
