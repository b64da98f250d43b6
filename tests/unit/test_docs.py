"""What we show to readers holds: the example pillar is rendered by Salt and read by ``spec``."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import salt.config
import salt.pillar

from saltext.immutable.spec import definitions
from saltext.immutable.spec.model import FunctionCheck, HttpCheck
from saltext.immutable.spec.origins import Parent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pillar_of(tmp_path):
    """Return the example pillar as Salt compiles it for a minion id."""
    opts = salt.config.minion_config(None)
    opts.update(
        root_dir=str(tmp_path),
        cachedir=str(tmp_path / "cache"),
        extension_modules=str(tmp_path / "ext"),
        file_client="local",
        pillar_roots={"base": [str(ROOT / "pillar")]},
    )

    def compiled(minion_id):
        return salt.pillar.Pillar({**opts, "id": minion_id}, {}, minion_id, "base").compile_pillar()

    return compiled


def test_the_example_pillar_defines_the_example_fleet(pillar_of):
    found = definitions(pillar_of("salt.example.com_master"))
    assert [recipe.name for recipe in found.chain("web")] == ["base", "web"]
    assert found.recipes["web"].source == Parent("base")
    web = found.fleets["web"]
    assert (web.size, web.provider.name, web.strategy.max_surge.up(web.size)) == (3, "nspawn", 1)
    assert web.health == (FunctionCheck("service.status", ("nginx",)), HttpCheck("http://{address}/"))


def test_the_bake_and_the_machines_see_the_same_example_pillar(pillar_of):
    found = definitions(pillar_of("salt.example.com_master"))
    bake_id = found.recipes["web"].bake_id
    machine_id = found.fleets["web"].minion_id.format(token="0123")
    assert pillar_of(bake_id) == pillar_of(machine_id) == {"web": {"version": "1"}}


def test_the_table_of_paths_is_the_one_that_is_tried():
    spec = importlib.util.spec_from_file_location("paths", ROOT / "tests/integration/paths.py")
    paths = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = paths
    spec.loader.exec_module(paths)
    text = (ROOT / "docs/guard.md").read_text()
    shown = text.partition("<!-- the table of tests/integration/paths.py -->\n")[2].partition("<!-- its end -->")[0]
    assert shown == paths.table(), "put the output of `python tests/integration/paths.py` into docs/guard.md"


PLACE = re.compile(r"`([\w./-]+(?:\.(?:py|cfg|toml|yaml|md)|/))(?::([\w.]+))?`")


def defined(path: Path) -> set[str]:
    """The functions, classes and methods of a file, each as a reader names it."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds)]
    inner = {f"{node.name}.{each.name}" for node in top for each in node.body if isinstance(each, kinds)}
    return {node.name for node in top} | inner


@pytest.mark.parametrize("path, name", sorted(set(PLACE.findall((ROOT / "docs/architecture.md").read_text()))))
def test_each_place_that_the_architecture_names_is_there(path, name):
    found = [root / path for root in (ROOT / "saltext/immutable", ROOT, ROOT / "docs") if (root / path).exists()]
    assert found, f"docs/architecture.md names {path}, which is not there"
    assert not name or name in defined(found[0]), f"docs/architecture.md names {path}:{name}, which is not there"


TESTED = re.compile(r"`(tests/[\w./-]+)`")


@pytest.mark.parametrize("path", sorted(set(TESTED.findall((ROOT / "docs/security.md").read_text()))))
def test_each_test_that_the_threat_model_names_is_there(path):
    assert (ROOT / path).is_file(), f"docs/security.md names {path}, which is not there"


def test_each_section_of_the_pillar_has_the_file_that_the_architecture_names():
    text = (ROOT / "docs/architecture.md").read_text()
    [row] = re.findall(r"called like its section \((.*?)\)", text)
    like_the_section, others = row.split("; but ")
    names = [*re.findall(r"`(\w+)`", like_the_section), *re.findall(r"in `(\w+)`", others)]
    assert len(names) > 10
    assert [name for name in names if not Path(ROOT, "saltext/immutable/spec", f"{name}.py").is_file()] == []
