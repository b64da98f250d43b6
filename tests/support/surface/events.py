"""What is fired and what is written into journals: tags of events, and kinds of entries.

New ones are found when they come: in runs of functional and integration tests (``seen.py``), and kinds of entries in
every simulation. Here those are found that the code has no words for any more. Events about images stand in the code
with tag and fields side by side, so that they are read from it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from .files import ROOT, load
from .library import LIBRARY

_OF_IMAGES = re.compile(r"image/(<>|[a-z_-]+)")
_MOVES = ("image/promote", "image/rollback")
"""What becomes of ``image/<>``."""


def read() -> dict[str, Any]:
    """Return what is written down of it, as far as the code bears it out."""
    known = load("events")
    texts = {node.value for node in _nodes(ast.Constant) if isinstance(node.value, str)}
    others = {tag: shape for tag, shape in known["tags"].items() if _last_word(tag) in {*texts, *map(_dashed, texts)}}
    images = {f"immutable/{tag}": fields for tag, fields in _of_images().items()}
    return {
        **{part: [kind for kind in known[part] if kind in texts] for part in ("deeds", "journal")},
        "shapes": known["shapes"],
        "tags": {
            **{tag: shape for tag, shape in others.items() if not tag.startswith("immutable/image/")},
            **{tag: _with(fields, known["tags"].get(tag)) for tag, fields in images.items()},
        },
    }


def journal() -> set[str]:
    """Return the kinds of entries that a journal may have."""
    return set(load("events")["journal"])


def _last_word(tag: str) -> str:
    """Return what of a tag the code must have: ``drift/`` of ``immutable/drift/<machine>``."""
    return re.split("immutable/|<fleet>/|<machine>", tag)[-2 if tag.endswith(">") else -1]


def _dashed(kind: str) -> str:
    return kind.replace(" ", "-").removeprefix("/")


def _of_images() -> dict[str, set[str] | None]:
    """Return each tag that is the second argument of a call; with the fields if all of them stand beside it."""
    found: dict[str, set[str] | None] = {}
    for call in _nodes(ast.Call):
        text = _text(call.args[1]) if len(call.args) == 2 else ""
        for tag in (_MOVES if "<>" in text else (text,)) if _OF_IMAGES.fullmatch(text) else ():
            fields = {"message", *(str(keyword.arg) for keyword in call.keywords)}
            found[tag] = None if "None" in fields else (found.get(tag) or set()) | fields
    return found


def _with(fields: set[str] | None, shape: Any) -> Any:
    """Return a shape with the fields that the code has; None: nothing is known of it."""
    if fields is None or shape is None:
        return shape
    there = {key.removesuffix("?"): key for key in shape}
    return {there.get(field, field): shape.get(there.get(field), "any") for field in fields}


def _nodes(kind: type[Any]) -> Iterator[Any]:
    for folder in (LIBRARY, ROOT / "_runners", ROOT / "_modules"):
        for file in sorted(folder.rglob("*.py")):
            yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kind))


def _text(node: ast.expr) -> str:
    """Return a text with ``<>`` for what is filled in; '' for what is no text."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "<>" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
