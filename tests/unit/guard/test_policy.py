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

from saltext.immutable.executors import direct_call
from saltext.immutable.guard import function_tables, policy, seal, status

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
WEB = policy.Sealed("web@3f2a9c1d04be", "web", "shop")
ROOT = Path(__file__).parents[3]


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
    monkeypatch.setattr(status, "_root_is_writable", lambda: False)
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
        pytest.param("state.get_pauses", [], {}, "read", id="pauses are listed"),
        pytest.param("state.get_pauses", ["/etc/hosts"], {}, "change", id="it deletes the file it is given"),
        pytest.param("service.start", ["nginx.service"], {}, "operate", id="units have dots"),
        pytest.param("service.start", ["getty@tty1"], {"no_block": None}, "operate", id="and instances"),
        pytest.param("service.start", ["/tmp/evil"], {}, "change", id="without systemd a file is executed"),
        pytest.param("service.start", ["../../tmp/evil"], {}, "change", id="and a path leads to one"),
        pytest.param("service.status", ["-Hroot@evil"], {}, "change", id="a name is no option"),
        pytest.param("service.status", ["ngin*"], {}, "read", id="a name may be a glob"),
        pytest.param("service.show", [["nginx"]], {}, "read", id="and a list"),
        pytest.param("service.show", [["nginx", "--root=/tmp"]], {}, "change", id="of names"),
        pytest.param("service.show", [{"nginx": 1}], {}, "change", id="and nothing else"),
        pytest.param("service.show", [], {"name": "nginx", "root": "/tmp/other"}, "change", id="of this machine"),
        pytest.param("pillar.items", [], {"saltenv": "v2/x", "pillarenv": None}, "read", id="pillar of an environment"),
        pytest.param("pillar.items", [], {"saltenv": "/etc"}, "change", id="which is no path"),
        pytest.param("pillar.item", ["a"], {"pillarenv": "../../x"}, "change", id="and leads nowhere"),
        pytest.param("pillar.get", ["a", "", False, None, ":", "base"], {}, "read", id="by position as well"),
        pytest.param("pillar.get", ["a", "", False, None, ":", "../x"], {}, "change", id="it is a name"),
        pytest.param("pillar.get", ["a", "", False, None, ":", None, "/x"], {}, "change", id="either of them"),
        pytest.param("pillar.fetch", ["a", "", False, None, ":", None, "/x"], {}, "change", id="by each name"),
        pytest.param("pillar.items", [], {"saltenv": 2024, "pillarenv": 3.1}, "read", id="a name may be a number"),
        pytest.param("pillar.items", [], {"saltenv": -1}, "change", id="which is no option"),
        pytest.param("pillar.items", [], {"saltenv": True}, "change", id="but nothing else"),
        pytest.param("pillar.file_exists", ["a", "/x"], {}, "change", id="in each function"),
        pytest.param("network.ping", ["10.0.0.1"], {"timeout": 2}, "read", id="others are pinged"),
        pytest.param("network.ping", ["10.0.0.1"], {"timeout": "1 -f"}, "change", id="but not flooded"),
        pytest.param("system.reboot", ["22:00"], {}, "operate", id="a reboot has its time"),
        pytest.param("system.reboot", ["--halt"], {}, "change", id="and is no halt"),
        pytest.param("lowpkg.owner", ["/usr/sbin/nginx"], {}, "read", id="files have owners"),
        pytest.param("lowpkg.owner", ["/usr/sbin/nginx"], {"root": "/tmp"}, "change", id="in this root"),
        pytest.param("pkg.list_pkgs", [], {"versions_as_list": True}, "read", id="packages are listed"),
        pytest.param("pkg.list_pkgs", [False, "/tmp"], {}, "change", id="of this root as well"),
        pytest.param(
            "event.send", ["shop/closed"], {"data": {"till": 3}, "who": "me"}, "operate", id="events are sent"
        ),
        pytest.param("event.send", ["manage_schedule"], {"func": "enable"}, "change", id="but none the minion obeys"),
        pytest.param("event.send", [], {"tag": "__master_disconnected"}, "change", id="or loses its master by"),
        pytest.param("event.send", [["manage_schedule"]], {}, "change", id="a tag is text"),
        pytest.param("event.send", ["shop/closed", {}, {"cmd": "x"}], {}, "change", id="no other request is sent"),
        pytest.param("event.fire_master", [{}, "shop/closed"], {"preload": {}}, "change", id="that way neither"),
        pytest.param("event.fire", [{"func": "add"}, "manage_schedule"], {}, "change", id="its own bus is closed"),
        pytest.param("schedule.list", [], {}, "read", id="the schedule is shown"),
        pytest.param("schedule.add", ["x"], {"function": "test.ping"}, "change", id="and not changed"),
        pytest.param("network.get_route", ["1.1.1.1"], {}, "change", id="get_route has a shell"),
        pytest.param("house.custom", [], {}, "change", id="the unknown is a change"),
        pytest.param("test", [], {}, "change", id="half a name is unknown"),
        pytest.param("test.", [], {}, "change", id="so is a module alone"),
        pytest.param("['test.ping', 'state.apply']", [], {}, "change", id="so is a list"),
    ],
)
def test_the_class_of_a_call(fun, args, kwargs, expected):
    assert policy.classify(fun, args, kwargs) == expected
    assert (policy.refusal(fun, args, kwargs, WEB) is None) == (expected != "change")


def sealed(**guard_of_the_recipe):
    return policy.Sealed("web@3f2a9c1d04be", "web", "shop", **guard_of_the_recipe)


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
    assert policy.classify(fun, [], {}, sealed(**recipes)) == expected
    assert (policy.refusal(fun, [], {}, sealed(**recipes)) is None) == (expected != "change")


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "says"),
    [
        pytest.param("service.enable", ["nginx"], {"no_block": True}, None, id="what starts at boot"),
        pytest.param("service.enable", ["nginx"], {"root": "/tmp/x"}, "only name, no_block", id="of this tree"),
        pytest.param("service.enable", ["nginx", False, True], {}, "only name, no_block", id="by position as well"),
        pytest.param("service.enable", ["/run/evil.service"], {}, "plain names", id="no file"),
        pytest.param("service.enable", [], {"name": "--root=/x"}, "plain names", id="no option"),
        pytest.param("service.enable", ["tmp.mount"], {}, "of type mount", id="no mount"),
        pytest.param("service.disable", ["immutable-mine.timer"], {}, "guard itself", id="not the guard's own"),
        pytest.param("service.mask", ["nginx", True], {}, None, id="until the reboot"),
        pytest.param("service.mask", ["nginx", True, "/x"], {}, "only name, runtime", id="of this tree, too"),
        pytest.param("service.mask", ["salt-minion"], {}, "nobody could", id="not the minion"),
        pytest.param("service.unmask", ["salt-minion"], {"__pub_jid": "1"}, None, id="which may come back"),
        pytest.param("service.unmask", ["../x"], {}, "plain names", id="by its name"),
        pytest.param("service.systemctl_reload", [], {}, None, id="units are read again"),
        pytest.param("kmod.remove", ["kvm"], {}, None, id="a module"),
        pytest.param("kmod.remove", ["kvm"], {"persist": True}, "only mod", id="not /etc/modules"),
        pytest.param("kmod.remove", ["kvm", True], {}, "only mod", id="by position neither"),
        pytest.param("kmod.remove", ["-f kvm"], {}, "plain names", id="not by force"),
        pytest.param("system.shutdown", [5], {}, None, id="in five minutes"),
        pytest.param("system.shutdown", ["--reboot"], {}, "plain names", id="which is no option"),
        pytest.param("system.halt", ["x"], {}, "no arguments", id="at once"),
    ],
)
def test_a_narrow_function_that_a_recipe_allows_stays_narrow(fun, args, kwargs, says):
    allows = sealed(allow=("*.*",))
    assert policy.classify(fun, args, kwargs, allows) == ("change" if says else "operate")
    assert policy.classify(fun, args, kwargs, WEB) == "change"
    refusal = policy.refusal(fun, args, kwargs, allows)
    assert refusal is None if says is None else says in refusal


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "expected"),
    [
        pytest.param("state.apply", ["nginx"], {"test": True}, "read", id="a dry run looks"),
        pytest.param("state.apply", [], {"test": True, "__pub_jid": "1"}, "read", id="of the whole top file too"),
        pytest.param("state.sls", [["nginx", "ssh"]], {"test": True, "exclude": "ssh"}, "read", id="without some"),
        pytest.param("state.highstate", [], {"test": True, "saltenv": "v2/x", "terse": True}, "read", id="or of v2"),
        pytest.param("state.sls_id", ["conf", "nginx"], {"test": True}, "read", id="or of one state"),
        pytest.param("state.test", ["nginx"], {}, "read", id="state.test says it itself"),
        pytest.param("state.test", ["nginx"], {"test": False}, "change", id="unless it is told otherwise"),
        pytest.param("state.apply", ["nginx"], {}, "change", id="without test it is none"),
        pytest.param("state.apply", ["nginx"], {"test": False}, "change", id="nor with False"),
        pytest.param("state.apply", ["nginx"], {"test": None}, "change", id="None leaves it to the config"),
        pytest.param("state.apply", ["nginx"], {"test": 1}, "change", id="1 is not True"),
        pytest.param("state.apply", ["nginx"], {"test": "True"}, "change", id="nor is a word"),
        pytest.param("state.apply", ["nginx"], {"TEST": True}, "change", id="nor another keyword"),
        pytest.param("state.highstate", [True], {}, "change", id="nor a position"),
        pytest.param("state.highstate", ["nginx"], {"test": True}, "change", id="that would be test, twice"),
        pytest.param("state.sls", ["nginx", None, "ssh"], {"test": True}, "change", id="nor by position"),
        pytest.param("state.apply", ["nginx"], {"test": True, "sync_mods": "all"}, "change", id="no code comes in"),
        pytest.param("state.apply", [], {"test": True, "localconfig": "/tmp/x"}, "change", id="no other config"),
        pytest.param("state.apply", [], {"test": True, "queue": True}, "change", id="no call for later"),
        pytest.param("state.apply", [], {"test": True, "pillar": {"a": 1}}, "change", id="no pillar of the caller"),
        pytest.param("state.highstate", [], {"test": True, "cache": True}, "change", id="no states of another file"),
        pytest.param("state.apply", [], {"test": True, "saltenv": "../../etc"}, "change", id="no way out of the cache"),
        pytest.param("state.apply", [], {"test": True, "saltenv": "/etc"}, "change", id="no path"),
        pytest.param("state.sls", ["x"], {"test": True, "pillarenv": "/etc"}, "change", id="of the pillar either"),
        pytest.param("state.sls", ["web.tls,web/x, y"], {"test": True}, "read", id="several, in folders"),
        pytest.param("state.sls", ["/x"], {"test": True}, "change", id="no file by its path"),
        pytest.param("state.sls", ["../../x"], {"test": True}, "change", id="nor one outside of the tree"),
        pytest.param("state.apply", [], {"mods": ["a", "..x"], "test": True}, "change", id="among others"),
        pytest.param("state.test", ["a,/x"], {}, "change", id="in a list of text"),
        pytest.param("state.apply", [".x"], {"test": True}, "change", id="a dot is a slash"),
        pytest.param("state.apply", ["a//x"], {"test": True}, "change", id="and two are another path"),
        pytest.param("state.sls_id", ["/conf", "/x"], {"test": True}, "change", id="where a state is named too"),
        pytest.param("state.sls_id", ["/conf", "x"], {"test": True}, "read", id="whose own name is any text"),
        pytest.param("state.sls", [{"base": "/x"}], {"test": True}, "change", id="no mapping"),
        pytest.param("state.apply", [], {"test": True, "pillarenv": ["base"]}, "change", id="an environment is text"),
        pytest.param("state.single", ["cmd.run", "id"], {"test": True}, "change", id="unless runs, dry or not"),
        pytest.param("state.template_str", ["x"], {"test": True}, "change", id="so does what is given"),
        pytest.param("state.high", [{}], {"test": True}, "change", id="in any form"),
        pytest.param("immutable.preview", [], {}, "read", id="the recipe's own states too"),
    ],
)
def test_the_class_of_a_dry_run(fun, args, kwargs, expected):
    assert policy.classify(fun, args, kwargs, WEB) == expected
    assert policy.classify(fun, args, kwargs, sealed(dry_runs=False)) == "change"


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "syncs"),
    [
        pytest.param("state.highstate", [], {"test": True}, True, id="a highstate syncs first"),
        pytest.param("state.apply", [], {"test": True}, True, id="by any name"),
        pytest.param("state.apply", [""], {"test": True}, True, id="with no states in it"),
        pytest.param("state.test", [], {"mods": None}, True, id="however that is said"),
        pytest.param("immutable.preview", [], {}, True, id="and a preview may hold one"),
        pytest.param("state.apply", ["nginx"], {"test": True}, False, id="states by name do not"),
        pytest.param("state.test", [], {"mods": "nginx"}, False, id="nor by keyword"),
        pytest.param("state.sls", ["nginx"], {"test": True}, False, id="nor as what they are"),
    ],
)
def test_no_dry_run_brings_an_executor(fun, args, kwargs, syncs):
    """``state.highstate test=True`` syncs ``_executors`` of the file roots, and Salt takes those before the guard."""
    refusal = policy.refusal(fun, args, kwargs, sealed(syncs=True))
    assert (refusal is not None) == syncs
    assert not syncs or f"{fun} syncs custom modules first; set autoload_dynamic_modules: False" in refusal


@given(st.text())
def test_what_is_in_no_table_is_refused(fun):
    module, _, function = fun.partition(".")
    listed = f"{function_tables.READ.get(module, '')} {function_tables.OPERATE.get(module, '')}".split()
    assert function in listed or policy.refusal(fun, [], {}, WEB)


def test_a_table_speaks_of_functions_that_another_allows():
    read, operate = set(policy.full_names(function_tables.READ)), set(policy.full_names(function_tables.OPERATE))
    assert not read & operate
    assert set(function_tables.LIMITED) | set(policy.full_names(function_tables.SINGLE_WORDS)) <= read | operate
    assert not set(function_tables.TRAPS) & (read | operate)
    assert not set(function_tables.DRY_RUNS) & (read | operate)


@pytest.mark.parametrize(
    ("fun", "sealed", "sentence"),
    [
        pytest.param(
            "state.highstate",
            policy.Sealed("web@3f2a9c1d04be", "web", "web"),
            "sealed: image web@3f2a9c1d04be of fleet web: state.highstate would change this machine; "
            "rebuild the fleet instead (salt-run fleet.rebuild web)",
            id="a machine of a fleet names the fleet's command",
        ),
        pytest.param(
            "pkg.install",
            policy.Sealed("web@3f2a9c1d04be", "web"),
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
            "sealed: image web@3f2a9c1d04be of fleet shop: house.custom is unknown to the guard, and unknown "
            "functions count as a change (recipe: guard: allow); rebuild the fleet instead "
            "(salt-run fleet.rebuild shop)",
            id="of the unknown nothing is claimed",
        ),
        pytest.param(
            "service.stop",
            policy.Sealed("web@3f2a9c1d04be", "web", deny=("service.st*",)),
            "sealed: image web@3f2a9c1d04be: its recipe denies service.stop (guard: deny: service.st*); "
            "bake and roll the recipe instead (salt-run image.bake web)",
            id="what the recipe denies names the recipe's word",
        ),
    ],
)
def test_a_refusal_names_the_image_and_what_to_do_instead(fun, sealed, sentence):
    assert policy.refusal(fun, [], {}, sealed) == sentence


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "sentence"),
    [
        pytest.param(
            "service.start",
            ["nginx"],
            {"unmask": True},
            "service.start could change this machine with these arguments: "
            "on a sealed machine it takes only name, no_block: unmask changes units",
            id="which arguments it takes",
        ),
        pytest.param(
            "state.get_pauses",
            ["/etc/hosts"],
            {},
            "state.get_pauses could change this machine with these arguments: "
            "on a sealed machine it takes no arguments: Salt deletes the file that a jid leads to",
            id="or that it takes none",
        ),
        pytest.param(
            "state.sls",
            ["nginx"],
            {"test": True, "sync_mods": "all"},
            "a dry run by state.sls takes only concurrent, exclude, mods, pillarenv, saltenv, state_events, terse, "
            "test, not sync_mods",
            id="what a dry run takes",
        ),
        pytest.param(
            "state.sls",
            ["nginx"],
            {"test": 1},
            "state.sls would change this machine: only the keyword test=True makes it a dry run",
            id="what makes a dry run",
        ),
        pytest.param(
            "state.apply",
            [],
            {"test": True, "saltenv": "../x"},
            "a dry run by state.apply takes a plain name as saltenv",
            id="what an environment is",
        ),
        pytest.param(
            "state.apply",
            ["../x"],
            {"test": True},
            "a dry run by state.apply takes names of SLS files, not '../x'",
            id="what an SLS file is",
        ),
        pytest.param(
            "ps.kill_pid",
            [1],
            {"signal": 38},
            "ps.kill_pid could change this machine with these arguments: "
            "on a sealed machine it sends only the signals 1, 2, 3, 9, 10, 12, 15, 18, 28",
            id="which signals are sent",
        ),
    ],
)
def test_a_refusal_names_what_is_wrong_with_the_arguments(fun, args, kwargs, sentence):
    assert f": {sentence}; rebuild the fleet" in policy.refusal(fun, args, kwargs, WEB)


@pytest.mark.parametrize("fun", ["state.apply", "state.test", "immutable.preview"])
def test_a_recipe_that_refuses_dry_runs_is_named(fun):
    refusal = policy.refusal(fun, [], {"test": True}, sealed(dry_runs=False))
    assert f"its recipe refuses dry runs, which run Jinja and the commands of unless and onlyif ({fun})" in refusal


def test_without_a_seal_every_call_goes_straight_through(host):
    assert run("state.apply", "nginx", test=True) == ("called", ("nginx",), {"test": True})


def test_without_a_seal_nothing_is_imported(host, monkeypatch):
    for module in ("saltext.immutable.guard.policy", "saltext.immutable.guard.seal"):
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


def test_a_seal_that_links_to_no_file_is_damaged(host):
    host.seal.symlink_to(host.seal.with_name("gone"))
    with pytest.raises(CommandExecutionError, match="a link to a file that does not exist"):
        run("grains.items")
    assert "damaged" in host.grain.immutable()["immutable"]
    assert "a link to a file that does not exist" in host.module.status()["problems"][0]


def test_a_machine_says_which_image_it_runs(machine):
    expected = {
        "sealed": True,
        "image": "web@3f2a9c1d04be",
        "digest": DIGEST,
        "recipe": "web",
        "fleet": "shop",
        "generation": 3,
    }
    assert machine.grain.immutable() == {"immutable": expected}
    found = machine.module.status()
    assert {key: found[key] for key in expected} == expected
    assert (found["problems"], found["installation"], found["salt"]) == ([], "ab12", "3008.3")


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
