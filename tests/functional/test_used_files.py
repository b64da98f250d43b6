"""What Salt's own compiler asks a master for, a little tree at a time: only a change of that gives another key."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.immutable.bake.keys import layer_key, used_files

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/support/masterless.py"
TOP = {"top.sls": "base: {'*': [web]}"}
OTHERS = {"other/init.sls": "nop: test.nop", "other/map.jinja": "{% set x = 1 %}", "other/files/a": "a"}
"""Are in each tree, and nobody asks for them."""


@dataclass
class Case:
    """A tree, which of its files its states use, and what of it cannot be proven."""

    tree: Mapping[str, str]
    used: tuple[str, ...]
    unproven: tuple[str, ...] = ()
    appears: tuple[str, ...] = ()
    """Files that would be used if they were there."""
    unnoticed: tuple[str, ...] = ("other/new", "other/new.sls")
    """Files that would not."""
    pillar: Mapping[str, Any] = field(default_factory=dict)


def managed(source: str, **more: Any) -> str:
    """Return a state that installs a file."""
    return json.dumps({"OUT": {"file.managed": [{"source": source}, *({name: more[name]} for name in more)]}})


WEB = "web/init.sls"
CASES = {
    "a state alone": Case({WEB: "a: test.nop"}, (WEB,), appears=("web.sls",)),
    "a map": Case(
        {
            WEB: "{% from 'web/map.jinja' import x with context %}\n{{ x }}: test.nop",
            "web/map.jinja": "{% set x = 'a' %}",
        },
        (WEB, "web/map.jinja"),
    ),
    "a map that imports defaults": Case(
        {
            WEB: "{% from 'web/map.jinja' import x with context %}\n{{ x.y }}: test.nop",
            "web/map.jinja": "{% import_yaml 'web/defaults.yaml' as x %}",
            "web/defaults.yaml": "y: z",
        },
        (WEB, "web/map.jinja", "web/defaults.yaml"),
    ),
    "a name that the pillar gives": Case(
        {
            WEB: "{% import_yaml 'web/' ~ pillar['flavour'] ~ '.yaml' as x %}\n{{ x.y }}: test.nop",
            "web/sweet.yaml": "y: z",
            "web/sour.yaml": "y: x",
        },
        (WEB, "web/sweet.yaml"),
        pillar={"flavour": "sweet"},
    ),
    "a name that a grain gives, where it may be missing": Case(
        {WEB: "{% include 'web/' ~ grains['os'] ~ '.jinja' ignore missing %}\na: test.nop"},
        (WEB,),
        appears=("web/Plan9.jinja",),
    ),
    "an include": Case({WEB: "include: [web.more]", "web/more.sls": "a: test.nop"}, (WEB, "web/more.sls")),
    "includes by pattern": Case(
        {WEB: "include: ['web.*.part']\nb: test.nop", "web/one/part.sls": "a: test.nop"},
        (WEB, "web/one/part.sls"),
        appears=("web/two/part.sls",),
        unnoticed=("other/new.sls", "web/two/other.sls"),
    ),
    "extend": Case(
        {WEB: "include: [base]\nextend: {a: {test: [{comment: x}]}}", "base/init.sls": "a: test.nop"},
        (WEB, "base/init.sls"),
    ),
    "a file": Case({WEB: managed("salt://web/motd"), "web/motd": "hello"}, (WEB, "web/motd")),
    "a template that imports another": Case(
        {
            WEB: managed("salt://web/page", template="jinja"),
            "web/page": "{% from 'web/macros' import m %}{{ m() }}",
            "web/macros": "{% macro m() %}hello{% endmacro %}",
        },
        (WEB, "web/page", "web/macros"),
    ),
    "a template that asks by function": Case(
        {
            WEB: managed("salt://web/page", template="jinja"),
            "web/page": "{{ salt['cp.get_file_str']('salt://web/' ~ 'text') }}",
            "web/text": "hello",
        },
        (WEB, "web/page", "web/text"),
    ),
    "the first of several sources": Case(
        {WEB: managed("SOURCES"), "web/default": "hello"}, (WEB, "web/default"), appears=("web/special",), unnoticed=()
    ),
    "a folder": Case(
        {
            WEB: '{"OUT": {"file.recurse": [{"source": "salt://web/site"}]}}',
            "web/site/a": "a",
            "web/site/deep/b": "b",
        },
        (WEB, "web/site/a", "web/site/deep/b"),
        appears=("web/site/c", "web/site/deep/er/d"),
    ),
    "a list of all files": Case(
        {WEB: "n{{ salt['cp.list_master']() | length }}: test.nop"}, (WEB,), appears=("anything",), unnoticed=()
    ),
    "a custom module": Case(
        {WEB: "{{ salt['mine_own.word']() }}: test.nop", "_modules/mine_own.py": "def word():\n    return 'a'\n"},
        (WEB, "_modules/mine_own.py"),
        appears=("_states/more.py",),
    ),
    "a state in Python": Case(
        {WEB: "#!py\ndef run():\n    return {'a': {'test.nop': []}}\n"}, (WEB,), appears=("web.sls",)
    ),
    "a map beside the state": Case(
        {
            WEB: "{% from tpldir ~ '/map.jinja' import x with context %}\n{{ x }}: test.nop",
            "web/map.jinja": "{% set x = 'a' %}",
        },
        (WEB, "web/map.jinja"),
    ),
    "a name that needs an escape": Case({WEB: managed("salt://|web/a?b"), "web/a?b": "hello"}, (WEB, "web/a?b")),
    "data that a function renders": Case(
        {WEB: "{{ salt['slsutil.renderer']('salt://web/data.sls').x }}: test.nop", "web/data.sls": "x: a"},
        (WEB, "web/data.sls"),
    ),
    "a part of a file": Case(
        {
            WEB: '{"OUT": {"file.append": [{"sources": ["salt://web/one", "salt://web/two"]}, {"makedirs": true}]}}',
            "web/one": "1",
            "web/two": "2",
        },
        (WEB, "web/one", "web/two"),
        unnoticed=(),
    ),
    "a script": Case(
        {WEB: "a: {cmd.script: [{source: 'salt://web/script'}]}", "web/script": "#!/bin/sh\n"},
        (WEB, "web/script"),
        ("runs a command",),
    ),
    "a slot that runs a command": Case(
        {WEB: '{"OUT": {"file.managed": [{"contents": "__slot__:salt:cmd.run(true)"}]}}'},
        (WEB,),
        ("runs a command (slot)",),
    ),
    "a slot of a custom module that reads the clock": Case(
        {
            WEB: '{"OUT": {"file.managed": [{"contents": "__slot__:salt:mine_own.word()"}]}}',
            "_modules/mine_own.py": "import os, time\n\ndef word():\n    return 'a'\n",
        },
        (WEB, "_modules/mine_own.py"),
        ("imports time",),
    ),
    "the pillar of another environment": Case(
        {WEB: "n{{ salt['pillar.items'](pillarenv='dev') | length }}: test.nop"}, (WEB,), ("a pillar of its own",)
    ),
    "the pillar once more": Case({WEB: "n{{ salt['pillar.items']() | length }}: test.nop"}, (WEB,)),
    "a command by the name of its function": Case(
        {WEB: "{{ salt.get('cmd.run')('echo a') }}: test.nop"}, (WEB,), ("cmd.run",)
    ),
    "the clock by another filter": Case(
        {WEB: "y{{ None | date_format('%Y') }}: test.nop"}, (WEB,), ("filter date_format",)
    ),
    "a part of a date": Case({WEB: "y{{ '2026' | strftime('%Y') }}: test.nop"}, (WEB,), ("filter strftime",)),
    "Python that calls a function by another name": Case(
        {WEB: "#!py\ndef run():\n    s = __salt__\n    return {s['cmd.run']('echo a'): {'test.nop': []}}\n"},
        (WEB,),
        ("runs a command (cmd.run)", "runs a command in init.sls"),
    ),
    "Python that runs a program": Case(
        {WEB: "#!py\nimport os\ndef run():\n    os.system('true')\n    return {'a': {'test.nop': []}}\n"},
        (WEB,),
        ("runs a command in init.sls",),
    ),
    "states as objects": Case(
        {WEB: "#!pyobjects\nTest.nop(salt.cmd.run('echo a'))\n"}, (WEB,), ("runs a command (cmd.run)",)
    ),
    "a file that Python writes": Case(
        {WEB: managed("salt://web/page", template="py"), "web/page": "import time\ndef run():\n    return 'a'\n"},
        (WEB, "web/page"),
        ("imports time",),
    ),
    "data that Python makes": Case(
        {
            WEB: "{{ salt['slsutil.renderer']('salt://web/data', default_renderer='py').x }}: test.nop",
            "web/data": "import time\ndef run():\n    return {'x': 'a'}\n",
        },
        (WEB, "web/data"),
        ("imports time",),
    ),
    "a custom module that calls another": Case(
        {
            WEB: "{{ salt['mine_own.word']() }}: test.nop",
            "_modules/mine_own.py": "def word():\n    return __salt__['other_own.word']()\n",
            "_modules/other.py": "import time\n\n__virtualname__ = 'other_own'\n\n"
            "def __virtual__():\n    return __virtualname__\n\ndef word():\n    return 'a'\n",
        },
        (WEB, "_modules/mine_own.py", "_modules/other.py"),
        ("other.py imports time",),
    ),
    "a command": Case({WEB: "'true': cmd.run"}, (WEB,), ("runs a command",)),
    "a command while it is rendered": Case({WEB: "{{ salt['cmd.run']('echo a') }}: test.nop"}, (WEB,), ("cmd.run",)),
    "the same in the other notation": Case({WEB: "{{ salt.cmd.run('echo a') }}: test.nop"}, (WEB,), ("cmd.run",)),
    "the mine": Case({WEB: "n{{ salt['mine.get']('*', 'x') | length }}: test.nop"}, (WEB,), ("asks the mine",)),
    "the clock": Case({WEB: "y{{ None | strftime('%Y') }}: test.nop"}, (WEB,), ("reads the clock",)),
    "a date that is written down": Case({WEB: "y{{ '2026-01-02' | strftime('%Y') }}: test.nop"}, (WEB,)),
    "Python that reads the clock": Case(
        {WEB: "#!py\nimport time\ndef run():\n    return {'a': {'test.nop': []}}\n"}, (WEB,), ("imports time",)
    ),
    "a custom module that runs commands": Case(
        {
            WEB: "{{ salt['mine_own.word']() }}: test.nop",
            "_modules/mine_own.py": "def word():\n    return __salt__['cmd.run']('echo a')\n",
        },
        (WEB, "_modules/mine_own.py"),
        ("runs a command (cmd.run)", "runs a command in the custom module mine_own"),
    ),
    "a custom module that connects to the network": Case(
        {
            WEB: "{{ salt['mine_own.word']() }}: test.nop",
            "_modules/mine_own.py": "import importlib\n\ndef word():\n    s = importlib.import_module('so' + 'cket')\n"
            "    with s.socket(s.AF_INET, s.SOCK_DGRAM) as it:\n        it.connect(('192.0.2.1', 9))\n    return 'a'\n",
        },
        (WEB, "_modules/mine_own.py"),
        ("connects to 192.0.2.1",),
    ),
}


class World:
    """What one case's master serves."""

    def __init__(self, place: Path, case: Case) -> None:
        self.place, self.case = place, case
        self.write({**TOP, **OTHERS, **case.tree})
        self.trace_file = place / "trace"
        self.trace: list[list[Any]] = []
        self.master = {
            "root_dir": str(place / "master"),
            "cachedir": str(place / "master/cache"),
            "file_roots": {"base": [str(place / "tree")]},
            "fileserver_list_cache_time": 0,
        }

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            file = self.place / "tree" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            sources = "[{source: ['salt://web/special', 'salt://web/default']}]"
            text = text.replace('[{"source": "SOURCES"}]', sources)
            file.write_text(text.replace("OUT", str(self.place / "out")))

    def order(self) -> dict[str, Any]:
        custom = {"modules": str(self.place / "tree/_modules")} if (self.place / "tree/_modules").exists() else {}
        config = {
            "id": "web-bake",
            "root_dir": str(self.place / "minion"),
            "cachedir": str(self.place / "minion/cache"),
            "extension_modules": str(self.place / "minion/extmods"),
            "grains": {"os": "Plan9", "id": "web-bake", "kernel": "Linux", "shell": "/bin/sh"},
            "pillar": dict(self.case.pillar),
            "state_events": False,
        }
        return {"config": config, "master": self.master, "trace": str(self.trace_file), "extmods": custom}

    def key(self) -> str:
        opts = {**copy.deepcopy(salt.config.master_config(None)), **self.master}
        return layer_key.key(layer_key.complete({}, layer_key.tree(opts), used_files.asked(self.trace)))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    """Apply the states of each tree, in a process of its own as Salt's classes are looked on at."""
    made = {name: World(tmp_path_factory.mktemp("world"), case) for name, case in CASES.items()}
    orders = json.dumps([world.order() for world in made.values()])
    done = subprocess.run([sys.executable, SCRIPT], input=orders, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (name, world), result in zip(made.items(), json.loads(done.stdout), strict=True):
        assert isinstance(result, dict) and all(state["result"] for state in result.values()), (name, result)
        world.trace = [json.loads(line) for line in world.trace_file.read_text().splitlines()]
    return made


def each(what: str) -> list[Any]:
    return [
        pytest.param(name, path, id=f"{name}: {path}") for name, case in CASES.items() for path in getattr(case, what)
    ]


@pytest.mark.parametrize(("name", "path"), [*each("used"), *(pytest.param(name, "top.sls") for name in CASES)])
def test_a_change_of_a_file_that_is_used_gives_another_key(worlds, name, path):
    world = worlds[name]
    before, file = world.key(), world.place / "tree" / path
    text = file.read_text()
    try:
        file.write_text(f"{text}\n# changed\n")
        assert world.key() != before
    finally:
        file.write_text(text)
    assert world.key() == before


@pytest.mark.parametrize(("name", "path"), each("appears"))
def test_a_file_that_would_be_used_gives_another_key(worlds, name, path):
    world = worlds[name]
    before = world.key()
    world.write({path: "a: test.nop"})
    try:
        assert world.key() != before
    finally:
        (world.place / "tree" / path).unlink()


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_any_other_file_gives_the_same_key(worlds, name):
    world = worlds[name]
    before = world.key()
    for path, text in OTHERS.items():
        world.write({path: f"{text}\n# changed\n"})
    unused = set(world.case.tree) - set(world.case.used)
    kept = {path: (world.place / "tree" / path).read_text() for path in unused}
    for path in unused:
        world.write({path: "other: 1"})
    assert world.key() == before
    world.write({**kept, **OTHERS})


@pytest.mark.parametrize(("name", "path"), each("unnoticed"))
def test_a_new_file_that_would_not_be_used_gives_the_same_key(worlds, name, path):
    world = worlds[name]
    before = world.key()
    world.write({path: "new: test.nop"})
    try:
        assert world.key() == before
    finally:
        (world.place / "tree" / path).unlink()


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_proven_is_told_and_nothing_else(worlds, name):
    world = worlds[name]
    told = used_files.observed(world.trace)
    assert len(told) == len(world.case.unproven), told
    for expected in world.case.unproven:
        assert any(expected in sentence for sentence in told), told


@pytest.mark.parametrize("name", CASES)
def test_all_that_was_given_out_is_in_the_masters_list(worlds, name):
    world = worlds[name]
    opts = {**copy.deepcopy(salt.config.master_config(None)), **world.master}
    assert used_files.unlisted(layer_key.tree(opts), world.trace) == []
    assert used_files.differing(layer_key.tree(opts), world.trace) == []


@pytest.mark.parametrize("name", ["a file", "a folder", "an include", "a name that needs an escape"])
def test_what_was_given_otherwise_than_it_lies_there_is_named(worlds, name):
    world = worlds[name]
    path = world.case.used[-1]
    file = world.place / "tree" / path
    text = file.read_text()
    try:
        file.write_text(f"{text}\n# changed\n")
        opts = {**copy.deepcopy(salt.config.master_config(None)), **world.master}
        assert [each.lstrip("|") for each in used_files.differing(layer_key.tree(opts), world.trace)] == [path]
    finally:
        file.write_text(text)
