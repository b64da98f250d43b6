"""What the store, the leases and the builder say when something is wrong: each message has a cause, and what to do.

``docs/messages.md`` has them all. MESSAGES=write writes its table again: read it as a diff.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "saltext/immutable"
PAGE = ROOT / "docs/messages.md"
PARTS = {
    "Store and leases": ("store/*.py",),
    "Builder and host": ("host.py", "worker.py", "builder/*.py", "builder/sources/*.py", "builder/states/*.py"),
    "Machines": ("machines/*.py",),
    "Images, layers and signatures": ("images/layers.py", "images/sign.py", "images/verify.py"),
}
HEAD, BEGIN = "| it says | what to do |\n|---|---|\n", "<!-- the table: MESSAGES=write -->"
INNER = {"Refused", "ValueError", "AttributeError", "OSError", "ReadError"}
"""Errors that no operator meets: others put them into their own messages."""
COMPOSED = {"…; …", "minion_id: …", "image … may not be used: …", "… (the signature covers … and the files beside it)"}
"""Messages of which both parts come from elsewhere."""


def messages(patterns: tuple[str, ...]) -> Iterator[str]:
    """Yield the messages of modules; what is filled in is an ellipsis, and what follows a line break is left out."""
    for path in sorted(path for pattern in patterns for path in LIBRARY.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text())):
            found = _text(node.exc.args[0]) if isinstance(node, ast.Raise) and _is_made(node.exc) else _returned(node)
            text = "" if found is None else found.partition("\n")[0].removesuffix(":")
            if text.strip("… ") and text not in COMPOSED:
                yield text


def _is_made(made: ast.expr | None) -> bool:
    return isinstance(made, ast.Call) and bool(made.args) and ast.unparse(made.func).rpartition(".")[2] not in INNER


def _returned(node: ast.AST) -> str | None:
    """Return the message of a function that makes an error: ``return Damaged("...")``."""
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call) and "Damaged" in ast.unparse(node.value.func):
        return _text(node.value.args[0])
    return None


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def parts(message: str) -> tuple[str, str]:
    """Return the cause of a message and what to do: after a semicolon, or in brackets."""
    cause, _, advice = message.rpartition("; ")
    if cause:
        return cause, advice
    found = re.fullmatch(r"(.*) \((.* makes one|give a .*)\)", message)
    return (found[1], found[2]) if found else (message, "")


TABLES = {title: sorted({parts(message) for message in messages(patterns)}) for title, patterns in PARTS.items()}


def page() -> str:
    blocks = []
    for title, rows in TABLES.items():
        lines = "".join(f"| {_cell(cause)} | {_cell(advice)} |\n" for cause, advice in rows)
        blocks.append(f"## {title}\n\n{HEAD}{lines}")
    return PAGE.read_text().partition(BEGIN)[0] + BEGIN + "\n\n" + "\n".join(blocks)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


@pytest.mark.parametrize(("title", "row"), [(title, row) for title, rows in TABLES.items() for row in rows])
def test_each_message_says_what_to_do(title: str, row: tuple[str, str]) -> None:
    cause, advice = row
    assert advice, f"{cause!r} does not say what to do: '...; do this'"


def test_the_documentation_has_each_message() -> None:
    if os.environ.get("MESSAGES") == "write":
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "MESSAGES=write writes the table again"


def test_messages_are_found() -> None:
    assert min(map(len, TABLES.values())) > 5
    assert ("… is held by …", "wait for its end, or end that process") in TABLES["Store and leases"]
