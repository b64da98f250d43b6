"""Typed readers of YAML values.

A reader takes any value and returns a checked one, or raises ``ValueError`` with the end of a sentence that begins with
the path of the value: `spec.section` knows it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, TypeVar, cast

from saltext.immutable.patterns import ENVIRONMENT
from saltext.immutable.spec.model import Amount
from saltext.immutable.text import plain, quoted

T = TypeVar("T")
Reader = Callable[[Any], T]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_MINION_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PERCENT = re.compile(r"([0-9]{1,3})%")
_DURATION = re.compile("".join(f"(?:([0-9]{{1,10}}){unit})?" for unit in "dhms"))
_SIZE = re.compile(r"([0-9]{1,19})([KMG]?)")
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_UNITS = (86400, 3600, 60, 1)
_MAX_NAME = 63
"""Characters: a name becomes part of the names of files, units and hosts."""
_MAX_MINION_ID = 200
"""Characters: with prefixes and suffixes, a minion id is the name of a file."""
_MAX_TEXT = 1024
"""Characters of a text that is no data: it becomes part of command lines and of names of files."""
_MAX_COUNT = 100_000
"""Of machines, tasks, images: more is a slip of the hand."""
_MAX_SECONDS = 36500 * 86400.0
_DATA_TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]*")
"""No control characters but tab, newline and carriage return, and no lone surrogates, which no file takes."""
_MAX_DEPTH, _MAX_DATA = 20, 200_000
"""Of plain data: lists and mappings in each other, and characters and values in all."""
_MAX_INTEGER = (1 << 63) - 1
"""A message of Salt carries no larger one."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown word: the nearest known one, or all if none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word[:_MAX_NAME], names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names) or 'nothing'}"


def described(value: object) -> str:
    """Return type and value for a sentence: ``str '3'``; ``empty`` for null."""
    return "empty" if value is None else f"{type(value).__name__} {quoted(value)}"


def mapping(value: object) -> Mapping[str, Any]:
    """Read a mapping whose keys are text."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, not {described(value)}")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"the key {quoted(key)} must be text; quote it")
    return value


def sequence(value: object) -> tuple[Any, ...]:
    """Read a list."""
    if not isinstance(value, list | tuple):
        example = plain(value)[:80] if isinstance(value, str) else "" if value is None else quoted(value)
        raise ValueError(f"must be a list, not {described(value)}; write [{example}]")
    return tuple(value)


def text(value: object) -> str:
    """Read one line of text that is not empty."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {described(value)}; " + ("write a value" if value is None else "quote it"))
    if not value.strip():
        raise ValueError("must not be empty; write a value")
    if not value.isprintable():
        raise ValueError(f"{quoted(value)} holds characters that cannot be printed; take them out")
    return _short(value, _MAX_TEXT)


def words(value: object) -> tuple[str, ...]:
    """Read a list of texts."""
    return tuple(text(item) for item in sequence(value))


def name(value: object) -> str:
    """Read the name of a recipe, fleet or channel: it becomes part of paths, events and units."""
    found = text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{quoted(found)} is not a name; use small letters, digits and '-', a letter or digit first")
    return _short(found, _MAX_NAME)


def names(value: object) -> tuple[str, ...]:
    """Read names in ``a,b,c`` or in a list, each once."""
    given = words(value.split(",") if isinstance(value, str) else value)
    found = tuple(dict.fromkeys(name(word.strip()) for word in given if word.strip()))
    if not found:
        raise ValueError("no recipe is named; write web, or base,web")
    return found


def absolute_path(value: object) -> str:
    """Read the absolute path of a file."""
    found = text(value)
    if not found.startswith("/"):
        raise ValueError(f"{quoted(found)} is no absolute path; write one that begins with /")
    return found


def minion_id(value: object) -> str:
    """Read a minion id: it must be a file name, a host name, and not a glob."""
    found = text(value)
    if not _MINION_ID.fullmatch(found):
        raise ValueError(f"{quoted(found)} is not a minion id; use letters, digits, '.', '-' and '_'")
    return _short(found, _MAX_MINION_ID)


def environment(value: object) -> str:
    """Read the name of an environment (saltenv): it becomes a folder in the minion's cache."""
    return _relative(value, "an environment; write a name without spaces and '..', such as base")


def sls(value: object) -> str:
    """Read the name of an SLS file."""
    return _relative(value, "an SLS; write its name without spaces, such as web.secrets")


def _relative(value: object, what: str) -> str:
    found = text(value)
    if not ENVIRONMENT.fullmatch(found):
        raise ValueError(f"{quoted(found)} is not {what}")
    return found


def data(value: object) -> Any:
    """Read plain data, which a job, a file of YAML and JSON can carry.

    That is text, whole numbers of 64 bits, finite numbers, booleans, null, and lists and mappings of such.
    """
    if any(total > _MAX_DATA for total in accumulate(_weights(value, _MAX_DEPTH))):
        raise ValueError(f"must have at most {_MAX_DATA} characters and values; leave some out")
    return _plain(value)


def _weights(value: object, depth: int) -> Iterator[int]:
    """Yield how much each part of nested data counts. Data may hold itself, or one list a thousand times."""
    if depth < 0:
        raise ValueError(f"must not have more than {_MAX_DEPTH} lists and mappings in each other; make it flatter")
    yield len(value) + 1 if isinstance(value, str) else 1
    parts: Iterable[object] = value if isinstance(value, list | tuple) else ()
    for part in (*value, *value.values()) if isinstance(value, Mapping) else parts:
        yield from _weights(part, depth - 1)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and _DATA_TEXT.fullmatch(value):
        return value
    if isinstance(value, float) and math.isfinite(value) or isinstance(value, int) and abs(value) <= _MAX_INTEGER:
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in mapping(value).items()}
    raise ValueError(f"{described(value)} is no plain data; write text without control characters, or a finite number")


def data_list(value: object) -> tuple[Any, ...]:
    """Read a list of plain `data`."""
    return tuple(data(sequence(value)))


def data_mapping(value: object) -> dict[str, Any]:
    """Read a mapping of plain `data`."""
    return cast(dict[str, Any], data(mapping(value)))


def _short(found: str, most: int) -> str:
    if len(found) > most:
        raise ValueError(f"{plain(found[:20])}... has {len(found)} characters; use at most {most}")
    return found


def flag(value: object) -> bool:
    """Read a boolean; ``1`` and ``'yes'`` are refused."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {described(value)}")
    return value


def either(*choices: str) -> Reader[Any]:
    """Return a reader that accepts one of several words."""

    def word(value: object) -> Any:
        if value not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {described(value)}")
        return value

    return word


def count(value: object) -> int:
    """Read a whole number, zero or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {described(value)}; write it without quotes")
    if value < 0:
        raise ValueError(f"must be 0 or more, not {quoted(value)}")
    if value > _MAX_COUNT:
        raise ValueError(f"must be {_MAX_COUNT} or less, not {quoted(value)}")
    return value


def number(least: float, most: float) -> Reader[float]:
    """Return a reader of numbers from ``least`` to ``most``."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}, not {described(value)}")
        return float(value)

    return read


def whole(least: int, most: int) -> Reader[int]:
    """Return a reader of whole numbers from ``least`` to ``most``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {described(value)}")
        return value

    return read


running_number = whole(1, _MAX_INTEGER)
"""The reader of the number of a rollout or a generation: a store counts them for as long as it lives."""


def size(least: str, most: str) -> Reader[int]:
    """Return a reader of numbers of bytes, ``512M``, ``1G`` or a number, from ``least`` to ``most``."""

    def read(value: object) -> int:
        found = _bytes(value)
        if not _bytes(least) <= found <= _bytes(most):
            raise ValueError(f"must be {least} to {most}, not {quoted(value)}")
        return found

    return read


def _bytes(value: object) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_INTEGER
    found = _SIZE.fullmatch(str(value).strip().upper()) if is_whole or isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{quoted(value)} is not a size; write 512M or 1G")
    return int(found[1]) * _SIZES[found[2]]


def amount(value: object) -> Amount:
    """Read a number of machines (``2``) or a percentage of the fleet (``25%``)."""
    if not isinstance(value, str):
        return Amount(count(value))
    match = _PERCENT.fullmatch(value)
    if match is None or int(match[1]) > 100:
        raise ValueError(f"must be a number of machines or 0% to 100%, not {quoted(value)}; write 1 or 25%")
    return Amount(int(match[1]), percent=True)


def duration(value: object) -> float:
    """Read a time in seconds, more than 0: ``90``, ``90s``, ``10m``, ``1h30m``, ``30d``."""
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"must be a duration, not {described(value)}; write 90s, 10m, 1h30m or 30d")
    if not 0 < seconds < math.inf:
        raise ValueError(f"must be more than 0 and finite, not {quoted(value)}")
    if seconds > _MAX_SECONDS:
        raise ValueError(f"must be 36500d or less, not {quoted(value)}")
    return seconds


def duration_or_zero(value: object) -> float:
    """Read a time in seconds, 0 or more."""
    return 0.0 if value == 0 and not isinstance(value, bool) else duration(value)


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < _MAX_INTEGER else math.inf
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        return None
    return float(sum(int(part or 0) * unit for part, unit in zip(match.groups(), _UNITS, strict=True)))
