"""What `make attack` says of how attacks ended."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("attack_main", ROOT / "tests/attack/__main__.py")
attack = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = attack
_spec.loader.exec_module(attack)


def report(nodeid: str, when: str = "call", outcome: str = "passed", longrepr: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        nodeid=nodeid, when=when, outcome=outcome, passed=outcome == "passed", longrepr=longrepr
    )  # fmt: skip


def item(nodeid: str, row: object = None, name: str = "") -> SimpleNamespace:
    params = {"row": row} if row else {}
    found = SimpleNamespace(nodeid=nodeid)
    if row or name:
        found.callspec = SimpleNamespace(params=params, id=name)
    return found


@pytest.fixture
def onlooker():
    found = attack.Onlooker()
    row = SimpleNamespace(start="master", name="a command", outcome="refused")
    places = "tests/integration/test_machines.py::test_programs_run_only_from_the_image_and_from_where_it_says"
    found.pytest_collection_modifyitems([
        item("tests/integration/test_guarded.py::test_no_path_ends_unnoticed[a command]", row, "a command"),
        item(f"{places}[/tmp]", name="/tmp"),
    ])  # fmt: skip
    return found


def test_an_attack_ends_as_promised_or_is_named(onlooker, capsys):
    command, programs = onlooker._rows
    onlooker.pytest_runtest_logreport(report(command))
    onlooker.pytest_runtest_logreport(report(programs, "setup"))
    onlooker.pytest_runtest_logreport(report(programs, outcome="failed", longrepr="x\nE   it ran"))
    first, second = onlooker.attacks
    assert (first.who, first.what, first.expected, first.well) == (attack.OPERATOR, "a command", "refused", True)
    assert (second.who, second.expected, second.ended) == (attack.ON_MACHINE, "stopped", "E   it ran")
    assert not second.well
    assert attack.table(onlooker.attacks).splitlines()[2:] == [
        "| who may send jobs | refused | 1 | 1 |",
        "| root on the machine | stopped | 1 | 0 |",
        "| all | | 2 | 1 |",
    ]


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_what_could_not_be_tried_is_no_success(onlooker, outcome):
    node = next(iter(onlooker._rows))
    onlooker.pytest_runtest_logreport(report(node, "setup", outcome, "no machine"))
    assert [(each.well, each.ended) for each in onlooker.attacks] == [(False, "no machine")]


def test_each_test_that_attacks_exists():
    for name in attack.TESTS:
        file, _, test = name.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"^def {test}\(", text, re.MULTILINE), name
