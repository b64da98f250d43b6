"""The rules of the house: who may import whom, what stays pure, what a loader file owes to Salt.

Who may import whom is written down as contracts of import-linter in ``pyproject.toml``; here they are tried.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "saltext" / "immutable"
PACK = "saltext.immutable"
LOADER_KINDS = ("grains", "modules", "runners", "states")
PURE = ("fleet/decide/*.py", "images/retention.py", "spec/*.py")
PURE += tuple(f"guard/{name}.py" for name in ("changes", "functions", "policy"))
CLOCKS = {"datetime.now", "datetime.today", "datetime.utcnow"}

SOURCES = sorted(LIBRARY.rglob("*.py"))
PURE_FILES = sorted(path for glob in PURE for path in LIBRARY.glob(glob))
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


def broken_contracts(root: Path) -> set[str]:
    """Run import-linter on a tree; return the ids of the contracts that it says are broken."""
    names = dict(re.findall(r'^id = "([^"]+)"\nname = "([^"]+)"', (root / "pyproject.toml").read_text(), re.MULTILINE))
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=root, capture_output=True, text=True, env={"COLUMNS": "1000"})
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    broken = {id for id, name in names.items() if f"{name} BROKEN" in done.stdout}
    assert done.returncode == bool(broken), done.stdout
    return broken


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of all that the contracts are about."""
    for folder in ("saltext", *(f"_{kind}" for kind in LOADER_KINDS)):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_about_imports_holds(copied):
    assert broken_contracts(copied) == set()


@pytest.mark.parametrize(
    "path, imported, contract",
    [
        pytest.param("_runners/fleet.py", "_runners.image", "flat", id="a loader file: another one"),
        pytest.param("spec/model.py", "_states.image", "doors", id="the library: a loader file"),
        pytest.param("images/stack.py", f"{PACK}.bake.bake", "house", id="what an image is: who bakes it"),
        pytest.param("new.py", "os", "house", id="a room that no floor names"),
        pytest.param("fleet/decide/steps.py", f"{PACK}.fleet.books.ledger", "fleet", id="a decision: the books"),
        pytest.param("fleet/drive/picture.py", f"{PACK}.fleet.drive.loop", "drive", id="the picture: the loop"),
        pytest.param("fleet/decide/steps.py", "time", "decisions", id="a decision: the clock"),
        pytest.param("fleet/decide/steps.py", "salt.exceptions", "decisions", id="a decision: Salt"),
        pytest.param("guard/policy.py", "os", "decisions", id="the policy of the guard: files"),
        pytest.param("spec/reading.py", "socket", "pillar", id="the pillar: the network"),
        pytest.param(
            "bake/keys/changed_inputs.py", f"{PACK}.bake.steps.states", "bake", id="a key of a layer: the steps"
        ),
        pytest.param("bake/steps/sign.py", f"{PACK}.bake.bake", "bake", id="a step of a bake: the list of steps"),
        pytest.param("bake/bake.py", f"{PACK}.bake.commands.prune", "bake", id="the list of steps: a command"),
        pytest.param("bake/steps/sign.py", f"{PACK}.bake.steps.seal", "steps", id="a step of a bake: another one"),
        pytest.param("builder/mirrors.py", f"{PACK}.builder.shell", "builder", id="the network: an order"),
        pytest.param("drift/image.py", f"{PACK}.drift.files", "drift", id="what is read: what is compared"),
        pytest.param("drift/files.py", f"{PACK}.store.schema", "no-master", id="a machine: the store"),
        pytest.param("builder/local.py", f"{PACK}.worker", "no-master", id="the builder: minions, by a detour"),
        pytest.param("guard/gate.py", "yaml", "before-a-call", id="before a call: more than the standard library"),
        pytest.param("spec/model.py", f"{PACK}.spec.recipes", "circles", id="a circle"),
    ],
)
def test_an_arrow_that_runs_back_is_found(copied, path, imported, contract):
    place = copied / path if path.startswith("_") else copied / "saltext/immutable" / path
    with place.open("a") as file:
        file.write(f"\nimport {imported}\n")
    assert contract in broken_contracts(copied)


def test_code_in_strings_imports_what_is_there():
    """Scripts that tests and the library hand to another Python are text here, which neither linter nor mypy reads."""
    texts = [*SOURCES, *LOADER_FILES]
    texts += [path for folder in ("tests", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {
        (short(path), module, name)
        for path in texts
        for module, names in re.findall(r"from (saltext\.immutable[\w.]*) import (\w+(?:, \w+)*)", path.read_text())
        for name in names.split(", ")
    }
    assert len(found) > 500
    missing = [each for each in sorted(found) if not is_there(*each[1:])]
    assert not missing


def is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.util.find_spec(f"{module}.{name}"))
    except ImportError:
        return False


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_the_library_imports_absolutely(path):
    list(imports(path))


@pytest.mark.parametrize("path", PURE_FILES, ids=short)
def test_decisions_do_not_look_at_the_world(path):
    tree = ast.parse(path.read_text())
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
    if path.parent.name == "_grains":
        assert module.immutable() == {"immutable": {"sealed": False}}
    elif any(name.startswith(PACK) for name in imports(path)):
        loads, why = module.__virtual__()
        assert loads is False
        assert re.search(r"saltext[.-]immutable", why)


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_annotations_are_never_evaluated(path):
    source = path.read_text()
    says_only_what_it_is = len(ast.parse(source).body) <= 1
    assert says_only_what_it_is or "from __future__ import annotations" in source


LONGEST_FILE, LONGEST_FUNCTION, MOST_FILES = 400, 60, 16
PACKAGES = sorted({path.parent for path in SOURCES})


@pytest.mark.parametrize("path", [*SOURCES, *LOADER_FILES], ids=short)
def test_files_and_functions_are_read_in_one_go(path):
    text = path.read_text()
    # A loader file holds a function for each command, and its help.
    lines = 0 if path in LOADER_FILES else text.count("\n")
    assert lines <= LONGEST_FILE, f"{short(path)} is longer than {LONGEST_FILE} lines"
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION]
    assert not long, f"{short(path)}: {', '.join(long)} longer than {LONGEST_FUNCTION} lines"


@pytest.mark.parametrize("folder", PACKAGES, ids=short)
def test_a_package_says_what_it_is_and_holds_no_code(folder):
    """What is here, who calls it, where it runs, what it must never import; the code is in named modules."""
    tree = ast.parse((folder / "__init__.py").read_text())
    doc = ast.get_docstring(tree) or ""
    assert doc.count(".") >= 2 and len(doc) > 80, f"{short(folder)} does not say what it is"
    names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(names) <= MOST_FILES, f"{short(folder)} holds {len(names)} files; put those of one kind into a folder"
    if folder != LIBRARY:
        code = [node for node in tree.body[1:] if not isinstance(node, ast.ImportFrom | ast.Assign)]
        assert not code, f"{short(folder)}/__init__.py holds code"


def test_each_package_is_in_what_pip_installs():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    assert {".".join(("saltext", *folder.relative_to(LIBRARY.parent).parts)) for folder in PACKAGES} <= listed
