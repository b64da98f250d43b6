"""The rules of the house: who may import whom, what stays pure, what a loader file owes to Salt."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "saltext" / "immutable"
PACK = "saltext.immutable"
LOADER_KINDS = ("grains", "modules", "runners", "states")
STORIES = ({"host"}, {"guard"}, {"spec"}, {"store", "minions"}, {"machines"}, {"images"}, {"drift"})
STORIES += ({"builder", "adoption"}, {"providers", "traffic"}, {"bake"}, {"fleet"})
"""From the ground up. A room imports its own story and those below it; who is not here stands anywhere."""
PURE = tuple(f"guard/{name}.py" for name in ("changes", "functions", "policy"))
PURE += tuple(f"fleet/decide/{path.name}" for path in (LIBRARY / "fleet/decide").glob("[!_]*.py"))
PURE += ("images/retention.py",)
WORLD = {"datetime", "io", "logging", "os", "random", "secrets", "shutil", "socket", "subprocess", "tempfile"}
WORLD |= {"threading", "time", "urllib", "uuid"}
CALENDAR = {"fleet/decide/windows.py": {"cronsim", "datetime"}}
"""Who may reckon with days and crons; what time it is they are told all the same."""
CLOCKS = {"datetime.now", "datetime.today", "datetime.utcnow"}

SOURCES = sorted(LIBRARY.rglob("*.py"))
PURE_FILES = [LIBRARY / path for path in PURE if (LIBRARY / path).exists()]
PURE_MODULES = tuple(f"{PACK}.{path.removesuffix('.py').replace('/', '.')}." for path in PURE)
SPEC_FILES = sorted((LIBRARY / "spec").glob("*.py"))
LOADER_FILES = sorted(path for kind in LOADER_KINDS for path in (ROOT / f"_{kind}").glob("[!_]*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as an absolute dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{short(path)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path: Path) -> set[str]:
    """The rooms of the pack that a file imports; what ``saltext.immutable`` itself holds is none."""
    names = {name.removeprefix(f"{PACK}.").split(".")[0] for name in imports(path) if name.startswith(f"{PACK}.")}
    return {name for name in names if importlib.util.find_spec(f"{PACK}.{name}") or name in LOADER_KINDS}


def room_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def story(room: str) -> int | None:
    return next((number for number, level in enumerate(STORIES) if room in level), None)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_imports_go_one_way(path):
    mine = story(room_of(path))
    for room in rooms(path):
        theirs = story(room)
        assert mine is None or theirs is None or theirs <= mine, f"{short(path)} imports {room}"


def test_imports_make_no_circle_of_rooms():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(room_of(path), set()).update(rooms(path) - {room_of(path)})
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as err:
        pytest.fail(f"rooms import each other in a circle: {' <- '.join(err.args[1])}")


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_the_library_never_imports_what_the_loader_loads(path):
    assert not (rooms(path) - {room_of(path)}) & {*LOADER_KINDS, "executors"}


@pytest.mark.parametrize("path", LOADER_FILES, ids=short)
def test_loader_files_never_import_each_other(path):
    assert not rooms(path) & {*LOADER_KINDS, "executors"}
    kinds = tuple(f"_{kind}" for kind in LOADER_KINDS)
    assert not [name for name in imports(path) if name.startswith(kinds)]


def calendar(path: Path) -> set[str]:
    return CALENDAR.get(str(path.relative_to(LIBRARY)), set())


@pytest.mark.parametrize("path", PURE_FILES, ids=short)
def test_decisions_need_only_the_standard_library_and_spec(path):
    for name in imports(path):
        top = name.split(".")[0]
        pure = name.startswith((f"{PACK}.spec.", f"{PACK}.guard.policy", *PURE_MODULES)) or top in calendar(path)
        assert pure or top in sys.stdlib_module_names, f"{short(path)}: {name}"


@pytest.mark.parametrize("path", [*PURE_FILES, *SPEC_FILES], ids=short)
def test_decisions_do_not_look_at_the_world(path):
    tree = ast.parse(path.read_text())
    assert not ({name.split(".")[0] for name in imports(path)} & WORLD) - calendar(path)
    assert not {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & CLOCKS
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"open", "__salt__", "__opts__", "__grains__", "__pillar__", "__context__"}


def test_the_executor_imports_only_what_is_loaded_anyway():
    tree = ast.parse((LIBRARY / "executors" / "direct_call.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
    assert found <= {"__future__", "collections.abc", "os", "typing"}


def test_executors_are_in_no_folder_that_salt_syncs():
    assert not (ROOT / "_executors").exists()
    assert not (ROOT / "executors").exists()


@pytest.mark.parametrize("kind", LOADER_KINDS)
def test_loader_folders_hold_flat_files_only(kind):
    found = [path for path in (ROOT / f"_{kind}").iterdir() if path.name != "__pycache__"]
    assert (ROOT / f"_{kind}" / "__init__.py") in found
    assert not [short(path) for path in found if path.suffix != ".py" or not path.is_file()]


def public_functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", LOADER_FILES, ids=short)
def test_every_public_function_says_what_it_does(path):
    for function in public_functions(path):
        assert ast.get_docstring(function), f"{function.name} has no docstring"
        if path.parent.name in ("_modules", "_runners"):
            assert "CLI Example:" in ast.get_docstring(function), f"{function.name} has no CLI Example"


@pytest.mark.parametrize("path", LOADER_FILES, ids=short)
def test_without_the_library_a_loader_file_says_so(path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "saltext"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "saltext", None)
    spec = importlib.util.spec_from_file_location("synced_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if any(name.startswith(PACK) for name in imports(path)):
        loads, why = module.__virtual__()
        assert loads is False
        assert re.search(r"saltext[.-]immutable", why)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_annotations_are_never_evaluated(path):
    source = path.read_text()
    says_only_what_it_is = len(ast.parse(source).body) <= 1
    assert says_only_what_it_is or "from __future__ import annotations" in source
