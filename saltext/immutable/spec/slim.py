"""Read ``slim`` of a recipe: ``true``, ``false``, or ``{docs: keep, locales: [en, de]}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Slim
from saltext.immutable.spec.section import Section
from saltext.immutable.text import plain, quoted

_LANGUAGE = re.compile(r"[a-z]{2,3}([_@.][A-Za-z0-9_@.-]+)?")
_KEEP_OR_DROP = reading.either("keep", "drop")
_EXAMPLE = "write true, false, or what is kept: {docs: keep, locales: [en, de]}"


def slim(read: Section) -> Slim | Literal[False] | None:
    """Read ``slim``; None if the recipe does not set it."""
    given = read.take("slim", _given, None)
    if not isinstance(given, Mapping):
        return Slim() if given else given
    section = read.inside("slim")
    found = Slim(
        locales=section.take("locales", _locales, Slim.locales),
        **{name: section.take(name, _KEEP_OR_DROP, getattr(Slim, name)) for name in _parts()},
    )
    section.close()
    return found


def _parts() -> tuple[str, ...]:
    return tuple(name for name in Slim.__dataclass_fields__ if name != "locales")


def _given(value: object) -> Any:
    if not isinstance(value, bool | Mapping):
        raise ValueError(f"must be true, false or a mapping, not {reading.described(value)}; {_EXAMPLE}")
    return value


def _locales(value: object) -> Literal["keep"] | tuple[str, ...]:
    if value == "keep":
        return "keep"
    if isinstance(value, str):
        raise ValueError(f"must be keep or a list of languages, not {quoted(value)}; write [{plain(str(value))[:80]}]")
    found = reading.words(value)
    if wrong := next((each for each in found if not _LANGUAGE.fullmatch(each)), None):
        raise ValueError(f"{quoted(wrong)} is not a language; write en, de or pt_BR")
    return found
