"""Hold documents that commands gave, and events that were fired, to what is written down of them.

``IMMUTABLE_SURFACE=write`` writes down what is seen in place of complaining (in one process at a time). It only widens:
what is not there any more is deleted by hand, and so are shapes given a name that come more than once.
"""

from __future__ import annotations

import copy
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from . import files
from .functions import read
from .shapes import merged, shape_of

HOW = "run this test with IMMUTABLE_SURFACE=write"
WRITE = os.environ.get("IMMUTABLE_SURFACE") == "write"
REFUSED = "refused"
"""What a sealed machine answers, whatever was called."""
_PARTS = {"json": "answers", "events": "tags"}
"""In each file: what the documents are below; ``shapes`` has the names for shapes."""
_ONE_AT_A_TIME = threading.Lock()
_FREE = {r"^immutable/(drift|break_glass)/.+": r"immutable/\1/<machine>"}
_FREE |= {r"^immutable/(?!image/|drift/|break_glass/|None/|all/)[^/]+/(?=.)": "immutable/<fleet>/"}


class Onlooker:
    """Widens what is written down by what it sees, and says in the end what that would change."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._data = _written_down()
        self._new: dict[str, None] = {}

    def answer(self, fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], document: Any) -> None:
        """Look at what a function returned; what people read in place of it is none of ours."""
        if not isinstance(document, dict) or set(document) != {"outputter", "data"}:
            self._look("json", call(fun, args, kwargs), document)

    def event(self, tag: str, document: Any) -> None:
        """Look at an event of ours."""
        for pattern, placeholder in _FREE.items():
            tag = re.sub(pattern, placeholder, tag)
        self._look("events", tag, document)

    def end(self) -> None:
        """Complain of what was not as written down."""
        names, found = list(self._new), [files.difference(part, data) for part, data in self._data.items()]
        self._begin()
        if names:
            changed = f"the public surface has changed: {', '.join(names)}; if that is meant: {HOW}"
            pytest.fail("\n".join([changed, *filter(None, found)]), pytrace=False)

    def _look(self, part: str, name: str, document: Any) -> None:
        with _ONE_AT_A_TIME:
            data, section = (_written_down() if WRITE else self._data)[part], _PARTS[part]
            seen, shapes = shape_of(json.loads(json.dumps(document))), copy.deepcopy(data["shapes"])
            # A dry run that is not written down answers as the function itself.
            known = data[section].get(name, data[section].get(name.removesuffix(" test=True")))
            found = seen if known is None else merged(known, seen, shapes)
            if (known, data["shapes"]) == (found, shapes):
                return
            after = {**data, section: {**data[section], name: found}, "shapes": shapes}
            if WRITE:
                files.write(part, after)
            else:
                self._data[part] = after
                self._new[name] = None


def _written_down() -> dict[str, Any]:
    return {part: {section: {}, "shapes": {}} | files.load(part) for part, section in _PARTS.items()}


def answers() -> dict[str, Any]:
    """Return what is written down of answers, for the functions that there are."""
    known, functions = _written_down()["json"], read()
    names = [REFUSED, *functions["modules"], *functions["runners"]]
    there = {name: shape for name, shape in known["answers"].items() if name.partition(" ")[0] in names}
    missing = set(names) - {name.partition(" ")[0] for name in there}
    return {**known, "answers": {**dict.fromkeys(missing), **there}}


def call(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return what a call is called in the file: a function with what its answer depends on."""
    words = [fun]
    first = kwargs.get("name", args[0] if args else None)
    if fun in ("fleet.status", "fleet.history") and first == "all":
        words.append("all")
    if fun == "image.bake" and (isinstance(first, list) or "," in str(first)):
        words.append("several")
    if kwargs.get("test"):
        words.append("test=True")
    return " ".join(words)
