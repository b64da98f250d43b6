"""What the master asks a host for is the same in its own process and as a Salt job on another host's minion."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from saltext.immutable.builder.local import DOORS as BAKING
from saltext.immutable.providers.nspawn import _DOORS as RUNNING

MODULES = Path(__file__).parents[3] / "_modules"


@pytest.mark.parametrize(("module", "doors"), [("image", {*BAKING, "export_image"}), ("machine", {*RUNNING})])
def test_each_door_is_a_function_of_the_execution_module_and_the_other_way_round(module, doors):
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in names if not name.startswith("_")} == doors
