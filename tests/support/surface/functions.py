"""What Salt's loader offers: every public function with its arguments and defaults."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from .files import ROOT

FOLDERS = {
    "executors": "saltext/immutable/executors",
    "grains": "_grains",
    "modules": "_modules",
    "runners": "_runners",
    "states": "_states",
}


def read() -> dict[str, dict[str, str]]:
    """Return ``{"runners": {"fleet.plan": "name, image=None"}}``."""
    return {
        kind: {name: _arguments(function) for name, function in _functions(ROOT / folder)}
        for kind, folder in FOLDERS.items()
    }


def _functions(folder: Path) -> Iterator[tuple[str, ast.FunctionDef]]:
    for file in sorted(folder.glob("[!_]*.py")):
        tree = ast.parse(file.read_text())
        set_here = {
            ast.unparse(node.targets[0]): ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")
        }
        alias = set_here.get("__func_alias__", {})
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{set_here.get('__virtualname__', file.stem)}.{alias.get(node.name, node.name)}", node


def _arguments(function: ast.FunctionDef) -> str:
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.unparse(function.args)
