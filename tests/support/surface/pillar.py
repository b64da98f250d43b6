"""Keys of the pillar and of the master config: which values each takes, and what it is where it is absent.

``spec`` reads every mapping by a ``Section``, one key at a time. Here sections take notes while they read examples
that lead them everywhere: what they are asked for are the keys. What a key takes is tried with ``VALUES``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest.mock import patch

from salt.exceptions import SaltInvocationError

from .library import Section, adoption, haproxy, nspawn, spec

Reader = Callable[[Any], Any]

VALUES: dict[str, list[Any]] = {
    "null": [None],
    "flag": [True, False],
    "number": [0, 3, 0.5],
    "word": [
        *("word", "highstate", "keep", "drop", "use", "only", "warn", "refuse", "machine", "chroot"),
        *("rollback", "pause", "wait", "skip", "replace"),
    ],
    "sha256": ["a" * 64],
    "text": [
        *("10m", "25%", "2G", "a.b", "a:b", "/srv/data", "http://x/y", "sqlite:///x", "10.0.0.0/24", "x{token}"),
        "assertTrue",
    ],
    "list": [[], ["word"], ["a.b"], ["/srv/data"], ["a:b"], [1, "100%"], [{}]],
    "mapping": [{}, {"word": "word"}],
}
"""What is tried with each key. One that takes all of a kind is said to take the kind."""

_TEST = {word: {} for word in ("assertion_section", "assertion_section_delimiter", "expected", "kwargs", "pillar_data")}
_TESTS = [{"saltcheck": True}, {**_TEST, "expected_return": 1, "expected-return": 1}, {"assertions": [_TEST]}]
_RECIPES = {
    "web": {"from": {"debian": "bookworm"}, "slim": {}, "tests": {"inside": _TESTS, "booted": _TESTS, "vm": _TESTS}},
    "tarball": {"from": {"tarball": "/srv/root.tar"}},
    "disk": {"from": {"disk": "/srv/root.qcow2"}},
    "directory": {"from": {"directory": "/srv/root"}},
    "child": {"from": {"recipe": "web"}},
    "grandchild": {"from": {"image": "web:stable"}},
}
_FLEET = {
    "provider": {"name": "nspawn"},
    "health": [{"fun": "service.status"}, {"http": "http://{address}/"}],
    "traffic": {"haproxy": {}},
    "windows": [{}],
}
_PLACEHOLDERS = {r"^immutable:recipes:[^:]+": "immutable:recipes:<recipe>", r":\d+(?=:|$)": ":<n>"}
_PLACEHOLDERS |= {r"^immutable:fleets:[^:]+": "immutable:fleets:<fleet>", "^provider": "provider:nspawn"}


def read() -> dict[str, str]:
    """Return ``{"immutable:fleets:<fleet>:max_age": "3, 0.5, 10m; default null"}``."""
    notes = Notes()
    with notes.taken():
        for reader, example in (
            (spec.definitions, {"immutable": {"recipes": _RECIPES, "fleets": {"web": _FLEET}}}),
            (spec.settings, {"immutable": {"windows": [{}]}}),
            (adoption.policy, {}),
            (haproxy, {}),
            (nspawn, {}),
        ):
            with suppress(SaltInvocationError):  # no example is complete
                reader(example)
    return notes.keys


class Notes:
    """What sections are asked for, by path."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let every section tell what it is asked for."""
        with ExitStack() as undo:
            for how in (self._take, self._need, self._inside, self._each):
                name = how.__name__.removeprefix("_")
                undo.enter_context(patch.object(Section, name, how(getattr(Section, name))))
            yield

    def _note(self, section: Section, key: str, what: str) -> None:
        path = f"{section.path}:{key}"
        for pattern, placeholder in _PLACEHOLDERS.items():
            path = re.sub(pattern, placeholder, path)
        self.keys.setdefault(path, what)

    def _take(self, original: Any) -> Any:
        def take(section: Section, key: str, reader: Reader, default: Any) -> Any:
            self._note(section, key, f"{taken_by(reader)}; default {_shown(default)}")
            return original(section, key, reader, default)

        return take

    def _need(self, original: Any) -> Any:
        def need(section: Section, key: str, reader: Reader, example: object) -> Any:
            self._note(section, key, f"{taken_by(reader)}; required")
            return original(section, key, reader, example)

        return need

    def _inside(self, original: Any) -> Any:
        def inside(section: Section, key: str) -> Section:
            self._note(section, key, "mapping")
            return original(section, key)

        return inside

    def _each(self, original: Any) -> Any:
        def each(section: Section, key: str, alone: str | None = None) -> Iterator[Section]:
            self._note(section, key, f"list of mappings{f', or a mapping with {alone}' if alone else ''}")
            return original(section, key, alone)

        return each


def taken_by(reader: Reader) -> str:
    """Return which of ``VALUES`` a reader takes."""
    found: list[str] = []
    for kind, values in VALUES.items():
        good = [value for value in values if _is_read(reader, value)]
        found += [kind] if good == values else map(_shown, good)
    return ", ".join(found).replace("word, sha256, text", "any text")


def _is_read(reader: Reader, value: object) -> bool:
    try:
        reader(value)
    except (ValueError, SaltInvocationError):
        return False
    return True


def _shown(value: Any) -> str:
    """Return a value as the pillar would have it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool | int | float | dict):
        return json.dumps(value)
    return str(value) or "''"
