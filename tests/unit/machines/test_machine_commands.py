"""The master calls the same functions of a host in its own process and as Salt jobs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from saltext.immutable.builder.local import LOCAL as IMAGE
from saltext.immutable.providers.nspawn import _LOCAL as MACHINE

MODULES = Path(__file__).parents[3] / "_modules"


@pytest.mark.parametrize(
    ("module", "functions"), [("image", {*IMAGE, "export_image"}), ("machine", {*MACHINE, "start_all"})]
)
def test_local_calls_and_jobs_offer_the_same_functions(module, functions):
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in names if not name.startswith("_")} == functions
