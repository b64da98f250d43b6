"""A section of a pillar or a config: it knows its path, and collects all errors, to report them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from salt.exceptions import SaltInvocationError

from saltext.immutable.spec.reading import Reader, data, mapping, name, nearest, sequence
from saltext.immutable.text import shortened

T = TypeVar("T")
_MAX_PATH, _MAX_SENTENCE, _MAX_PROBLEMS = 120, 280, 20
"""Characters of a path and of a sentence in a message, and messages: the pillar may hold values of any length."""


class Section:
    """One mapping at ``path``. Each key is read once; ``close`` reports the keys that were not read.

    A value that cannot be read adds a sentence to ``problems`` and yields the default (``None`` if there is none). The
    caller must `refuse` the problems.
    """

    def __init__(self, path: str, value: object, problems: list[str]) -> None:
        self.path = path
        self._problems = problems
        self._before = len(problems)
        self._read: list[str] = []
        self._values: Mapping[Any, Any] = {}
        self._is_mapping = False
        with self._reading(path):
            self._values = mapping(value)
            self._is_mapping = True

    @property
    def valid(self) -> bool:
        """Whether no problem has been found so far since this section was opened."""
        return len(self._problems) == self._before

    def problem(self, key: str, sentence: str) -> None:
        """Report that the value of ``key`` is wrong; '': this mapping itself."""
        self._report(f"{self.path}:{key}" if key else self.path, sentence)

    def need(self, key: str, reader: Reader[T], example: object) -> T:
        """Return the value of ``key``; if it is absent, report a problem that shows ``example``."""
        if self._is_mapping and key not in self._values:
            self.problem("", f"{key} is missing; write {key}: {example}")
        return self.take(key, reader, cast(T, None))

    def take(self, key: str, reader: Reader[T], default: T) -> T:
        """Return the value of ``key``, or ``default`` if the key is absent."""
        self._read.append(key)
        if key not in self._values:
            return default
        with self._reading(f"{self.path}:{key}"):
            return reader(self._values[key])
        return default

    def has(self, key: str) -> bool:
        """Return whether the key is there, and count it as read."""
        self._read.append(key)
        return key in self._values

    def inside(self, key: str) -> Section:
        """Return the mapping below ``key``; an absent one is empty."""
        return Section(f"{self.path}:{key}", self._values[key] if self.has(key) else {}, self._problems)

    def each(self, key: str, alone: str | None = None) -> Iterator[Section]:
        """Yield a section for each mapping in the list below ``key``.

        ``alone``: a mapping whose only key is this counts as a list of one.
        """
        given = self._values.get(key)
        is_alone = alone is not None and isinstance(given, Mapping) and set(given) == {alone}
        values: tuple[Any, ...] = self.take(key, (lambda value: (value,)) if is_alone else sequence, ())
        for number, value in enumerate(values):
            yield Section(f"{self.path}:{key}:{number}", value, self._problems)

    def entries(self, key: str) -> Iterator[tuple[str, Section]]:
        """Yield ``(name, section)`` for each entry of the mapping below ``key`` that has a valid name."""
        entries = self.inside(key)
        for label, value in entries._values.items():
            path = f"{entries.path}:{label}"
            with self._reading(path):
                name(label)
                yield label, Section(path, value, self._problems)

    def unread(self) -> list[str]:
        """Return the keys that were not read."""
        return [key for key in self._values if key not in self._read]

    def rest(self) -> dict[str, Any]:
        """Return all keys that were not read, for somebody else to check: each is plain `data`."""
        return {key: self.take(key, data, None) for key in self.unread()}

    def close(self) -> None:
        """Report each key that was not read as unknown, with the nearest known key."""
        for key in self.unread():
            self.problem(key, f"no such key; {nearest(key, self._read)}")

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except ValueError as err:
            self._report(path, str(err))
        except (ArithmeticError, RecursionError):
            self._report(path, "is too large, or too deep; write a smaller value")

    def _report(self, path: str, sentence: str) -> None:
        """Add a problem, printable and short enough to be read to its end, where it says what to do."""
        self._problems.append(f"{shortened(path, _MAX_PATH)}: {shortened(sentence, _MAX_SENTENCE)}")


def refuse(root: str, problems: Sequence[str]) -> None:
    """Raise ``SaltInvocationError`` if there are problems, with a line for each of the first; ``root``: their path."""
    more = len(problems) - _MAX_PROBLEMS
    further = [f"{root}: {more} more problems; correct these first"] if more > 0 else []
    if problems:
        raise SaltInvocationError("\n".join([*problems[:_MAX_PROBLEMS], *further]))
