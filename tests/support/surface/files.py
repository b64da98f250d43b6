"""The files of ``tests/surface``."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "surface"
_SHORT = 110
"""Characters of JSON that become one line."""
WRITE = ".venv/bin/python -m tests.support.surface --write"


class _Dumper(yaml.SafeDumper):
    """Writes what is short on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_sequence(tag, sequence, len(json.dumps(sequence)) < _SHORT)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.Node:
        return super().represent_mapping(tag, mapping, len(json.dumps(mapping)) < _SHORT)


def text(data: Any) -> str:
    """Return data as the files hold it, sorted."""
    dumped: str = yaml.dump(data, Dumper=_Dumper, width=1000, allow_unicode=True)
    return dumped


def head(part: str) -> str:
    """Return the comment that a file begins with; it is written by hand."""
    lines = path(part).read_text().splitlines(keepends=True) if path(part).exists() else []
    return "".join(line for line in lines if line.startswith("#"))


def path(part: str) -> Path:
    return FOLDER / f"{part}.yaml"


def load(part: str) -> Any:
    return yaml.safe_load(path(part).read_text()) if path(part).exists() else {}


def write(part: str, data: Any) -> None:
    path(part).write_text(head(part) + text(data))


def difference(part: str, data: Any) -> str:
    """Return how ``data`` differs from what is written down, as a diff that a reviewer reads; '' if it does not."""
    old, new = (text(one).splitlines() for one in (load(part), data))
    lines = difflib.unified_diff(old, new, f"tests/surface/{part}.yaml", "the code", n=1, lineterm="")
    return "\n".join(lines)
