"""Commands with a typing error: every function says the wrong word and exits with 1, before anything is touched.

The calls are derived from the signatures of all runner and execution functions, through Salt's real loader.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader
import yaml
from salt.exceptions import CommandExecutionError

from saltext.immutable import command_line
from saltext.immutable.runner import PlainError
from tests.support.surface.functions import read

ROOT = Path(__file__).parents[2]
WEB = {"recipe": "base", "size": 1, "minion_id": "web-{token}", "provider": {"name": "nspawn"}, "health": []}
PILLAR = {"recipes": {"base": {"from": {"debian": "bookworm"}, "bake_id": "base-bake"}}, "fleets": {"web": WEB}}
FUNCTIONS = {kind: read()[kind] for kind in ("runners", "modules")}
NAMES = [(kind, name) for kind, found in FUNCTIONS.items() for name in found]
LISTS = {"trusted", "components", "known", "suites", "bake_ids"}
RIGHT = {"size": 1, "rollout": 1, "ttl": 60, "target": "/x"} | dict.fromkeys(("order", "proof"), {})
"""What a required argument may be; others may be x."""
MAPPINGS = {"order", "proof", "about", "guard"}
WRONG = {
    **dict.fromkeys(("channel", "recipe", "fleet"), ("", "a b", "-x")),
    **dict.fromkeys(("name", "image", "old", "new"), ("",)),
    **dict.fromkeys(("minion_id", "minion"), ("", "web-*", "../x")),
    "size": ("abc", "", 1.5, -1, 100_001),
    **dict.fromkeys(("generation", "rollout"), ("abc", "", 1.5, -1, 0, 1 << 63)),
    **dict.fromkeys(("refresh", "cache", "kind"), ("", "sometimes", ["x"])),
    **dict.fromkeys(("ttl", "keep_failed"), ("", "soon", 0, -1, True)),
    **dict.fromkeys(("target", "junit"), ("", "x.xml")),
}
"""By argument of runner functions: what is of a right type and wrong even so, or nearly right."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("mistyped")
    files = {
        "pillar/top.sls": {"base": {"*": ["immutable"]}},
        "pillar/immutable.sls": {"immutable": PILLAR},
        "master": {
            "root_dir": str(place / "root"),
            "user": "root",
            "id": "host_master",
            "pillar_roots": {"base": [str(place / "pillar")]},
            "runner_dirs": [str(ROOT / "_runners")],
            "module_dirs": [str(ROOT / "_modules")],
            "immutable": {"store": f"sqlite:///{place}/store/store.sqlite", "root": str(place / "images")},
        },
    }
    for name, data in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(yaml.safe_dump(data))
    (place / "root/var/cache/salt/master/proc").mkdir(parents=True)  # the master makes it
    return place


@pytest.fixture(scope="module")
def loaded(place) -> dict[str, Any]:
    """Return both loaders, by kind."""
    opts = salt.config.master_config(str(place / "master"))
    minion = salt.config.minion_config(None, minion_id="host", defaults=None) | {
        "module_dirs": [str(ROOT / "_modules")], "cachedir": str(place / "cache"), "grains": {}, "pillar": {}
    }  # fmt: skip
    return {"runners": salt.loader.runner(opts), "modules": salt.loader.minion_mods(minion)}


def arguments(kind: str, name: str) -> dict[str, Any]:
    """Return name to default, ``...`` for what has to be given; without ``**``."""
    parsed = ast.parse(f"def f({FUNCTIONS[kind][name]}): pass").body[0].args
    names = [one.arg for one in parsed.args]
    required = len(names) - len(parsed.defaults)
    return dict.fromkeys(names[:required], ...) | dict(
        zip(names[required:], map(ast.literal_eval, parsed.defaults), strict=True)
    )


def wrong_calls(kind: str, name: str) -> Iterator[tuple[list[Any], dict[str, Any], str]]:
    """Yield wrong calls: arguments, keyword arguments, and a word of the message."""
    takes = arguments(kind, name)
    required = [one for one, default in takes.items() if default is ...]
    right = {one: [] if one in LISTS else RIGHT.get(one, "x") for one in required}
    if required:
        yield [], {}, f"{required[0]} is missing"
    yield [*right.values(), *(default for one, default in takes.items() if one not in right), "more"], {}, "too many"
    if "**" not in FUNCTIONS[kind][name]:
        yield [], {**right, "nonsens": 1}, "no argument nonsens"
    for one in (each for each in takes if len(each) > 3):
        yield [], {**{key: value for key, value in right.items() if key != one}, one[:-1]: "x"}, f"did you mean {one}?"
    for one, default in takes.items():
        if isinstance(default, bool) and one != "refresh":
            yield [], {**right, one: "maybe"}, f"{one} must be True or False, not 'maybe'"
        else:
            yield [], {**right, one: "x" if one in MAPPINGS else {"a": 1}}, f"{one} must be "
            if default is not None:
                yield [], {**right, one: None}, f"{one} must be "
        for wrong in WRONG.get(one, ()) if kind == "runners" else ():
            yield [], {**right, one: wrong}, f": {one}"


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])
def test_each_function_refuses_what_it_does_not_take(kind, name, loaded, place):
    tried = [call for call in wrong_calls(kind, name) if name != "immutable.answer" or "did you mean" not in call[2]]
    assert tried
    for args, kwargs, word in tried:
        with pytest.raises(PlainError if kind == "runners" else CommandExecutionError) as refused:
            loaded[kind][name](*args, **kwargs)
        said = str(refused.value)
        assert said.startswith(f"{name}: ") and word in said and "\n" not in said, (args, kwargs, said)
    assert not any((place / made).exists() for made in ("store", "images", "cache"))


def test_a_long_lived_store_has_higher_numbers_than_a_fleet_has_machines():
    (read,) = command_line.Number.__metadata__
    assert read(200_000) == 200_000


def test_only_what_is_written_down_is_offered(loaded):
    """What a module imports, Salt would take for a command, too."""
    for kind, modules in (("runners", ("fleet", "image")), ("modules", ("immutable", "image", "machine"))):
        offered = {name for name in loaded[kind] if name.partition(".")[0] in modules}
        assert offered == set(FUNCTIONS[kind])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["fleet.roll", "web", "imge=web:stable"], "there is no argument imge; did you mean image?"),
        pytest.param(["fleet.roll"], "fleet.roll: name is missing; there are: web"),
        pytest.param(["image.bake"], "image.bake: name is missing; there are: base"),
        pytest.param(["fleet.status", "web", "x"], "fleet.status: 'x' is one argument too many; it takes name"),
        pytest.param(["fleet.roll", "web", "name=web"], "fleet.roll: name is given twice: 'web' and 'web'"),
        pytest.param(["fleet.roll", "web", "test=yess"], "fleet.roll: test must be True or False, not 'yess'"),
    ],
    ids=["a wrong word", "no fleet", "no recipe", "one too many", "twice", "a wrong type"],
)  # fmt: skip
def test_salt_run_says_so_in_a_sentence_and_exits_with_1(place, words, says):
    script = str(Path(sys.executable).with_name("salt-run"))
    done = subprocess.run([script, "-c", str(place), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert says in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
    assert not (place / "store").exists()
