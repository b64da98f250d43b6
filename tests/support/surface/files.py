"""The files of ``tests/surface``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "surface"
WRITE = ".venv/bin/python -m tests.support.surface --write"


def text(data: Any) -> str:
    """Return data as the files hold it: sorted, one thing a line."""
    return yaml.safe_dump(data, width=1000, allow_unicode=True)


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
