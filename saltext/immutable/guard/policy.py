"""May this call run on a machine that runs an image? Pure: a decision and its reason.

What each function does is in ``functions.py``; what it is called with decides here. Whatever is in no table is a
change, known to us or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from saltext.immutable.guard.functions import (
    DRY_RUN,
    DRY_RUNS,
    NAMES,
    ONLY,
    OPERATE,
    READ,
    TAGS_OF_THE_MINION,
    TRAPS,
    WORDS,
)

Class = Literal["read", "operate", "change"]

ANSWERS_WHEN_DAMAGED = ("test.ping", "immutable.status")
ALWAYS = frozenset({"test.ping", "immutable.status", "saltutil.find_job", "saltutil.running"})
"""A machine that does not answer these cannot be managed: no ``deny`` takes them away."""


def names(table: Mapping[str, str]) -> list[str]:
    """Return the full names of the functions in a table."""
    return [f"{module}.{name}" for module, found in table.items() for name in found.split()]


_CLASSES: dict[str, Class] = {**dict.fromkeys(names(READ), "read"), **dict.fromkeys(names(OPERATE), "operate")}
_ONLY = {fun: (positions, frozenset(keywords.split())) for fun, (positions, keywords, _) in ONLY.items()}
_DRY_RUNS = {
    fun: (positions, frozenset(f"{keywords} {DRY_RUN}".split())) for fun, (positions, keywords) in DRY_RUNS.items()
}
_PREVIEW = "immutable.preview"
_WORDS = frozenset(names(WORDS))
_NAMES = frozenset(fun for fun in _CLASSES if fun.startswith(f"{NAMES}."))
_WORD = re.compile(r"[^-\s]\S*")
_NAME = re.compile(r"[^-/\s][^/\s]*")


@dataclass(frozen=True)
class Sealed:
    """Whom the guard speaks for, and what the recipe adds to its tables."""

    image: str
    """As people write it: ``web@3f2a9c1d04be``."""
    recipe: str
    fleet: str | None = None
    """None: no fleet launched this machine."""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Globs of function names; ``deny`` wins."""
    dry_runs: bool = True
    """Whether states may run with ``test=True``."""
    syncs: bool = False
    """Whether a highstate here, a dry one too, would bring custom modules first (``autoload_dynamic_modules``):
    executors are among them."""


def refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed) -> str | None:
    """Return why this call may not run on a machine sealed like this, with what to do instead; or None."""
    if classify(fun, args, kwargs, sealed) != "change":
        return None
    whose = f" of fleet {sealed.fleet}" if sealed.fleet else ""
    return f"sealed: image {sealed.image}{whose}: {_why(fun, args, kwargs, sealed)}; {_instead(sealed)}"


def classify(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None = None) -> Class:
    """Return what a call does to the machine it runs on; what is unknown or denied is a change.

    What only the recipe allows is at most *operate*: it is recorded.
    """
    if sealed is not None and sealed.deny and fun not in ALWAYS and _matches(fun, sealed.deny):
        return "change"
    found = _CLASSES.get(fun, "change")
    if found == "change":
        found = "read" if _is_dry_run(fun, args, kwargs, sealed) else "change"
    elif _harm(fun, args, kwargs) or (fun == _PREVIEW and _no_dry_run(fun, args, kwargs, sealed)):
        found = "change"
    if found == "change" and sealed is not None and _matches(fun, sealed.allow):
        return "operate"
    return found


def damaged(fun: str, reason: str) -> str | None:
    """Return why this call may not run where the seal cannot be read; None for what tells of that."""
    if fun in ANSWERS_WHEN_DAMAGED:
        return None
    return f"sealed: {reason}; nothing but {' and '.join(ANSWERS_WHEN_DAMAGED)} runs; replace this machine"


def _harm(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return what the arguments make of a function that is harmless without them."""
    if fun in _ONLY and _strangers(_ONLY[fun], args, kwargs):
        return f"here it takes {_arguments(*_ONLY[fun])}: {ONLY[fun][2]}"
    if fun in _NAMES and not _all(_NAME, args, kwargs):
        return "here it takes plain names: others can be options or files"
    if fun in _WORDS and not _all(_WORD, args, kwargs):
        return "here it takes single words: others can be options"
    return _harm_of_event(args, kwargs) if fun == "event.send" else None


def _harm_of_event(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    tag = args[0] if args else kwargs.get("tag")
    if len(args) > 2 or "preload" in kwargs:
        return "preload sends any request to the master"
    if not isinstance(tag, str) or tag.startswith(TAGS_OF_THE_MINION):
        return "the minion itself acts on an event of this tag"
    return None


def _is_dry_run(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None) -> bool:
    """Salt reads ``test=1`` or ``TEST=True`` its own way in each function: nothing counts but what is plain."""
    return fun in _DRY_RUNS and _is_test(fun, kwargs) and not _no_dry_run(fun, args, kwargs, sealed)


def _no_dry_run(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None) -> str | None:
    """Return why not even ``test=True`` makes a dry run of this call."""
    if sealed is not None and not sealed.dry_runs:
        return f"its recipe refuses dry runs, which run Jinja and the commands of unless and onlyif ({fun})"
    if sealed is not None and sealed.syncs and _is_highstate(fun, args, kwargs):
        return f"{fun} syncs custom modules first; set autoload_dynamic_modules: False in the config of this minion"
    if fun == _PREVIEW:
        return None
    if odd := _strangers(_DRY_RUNS[fun], args, kwargs):
        return f"a dry run by {fun} takes {_arguments(*_DRY_RUNS[fun])}, not {', '.join(odd)}"
    odd_environment = _odd_environment(kwargs)
    return f"a dry run by {fun} takes a plain name as {odd_environment}" if odd_environment else None


def _is_highstate(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """``state.apply`` without states is the highstate, and a preview may contain it."""
    if fun in ("state.apply", "state.test"):
        return not (args[0] if args else kwargs.get("mods"))
    return fun in ("state.highstate", _PREVIEW)


def _is_test(fun: str, kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("test", fun == "state.test") is True


def _odd_environment(kwargs: Mapping[str, Any]) -> str | None:
    """Return the keyword whose value could lead out of the minion's cache, where files lie by environment."""
    for key in ("saltenv", "pillarenv"):
        value = kwargs.get(key)
        if value is not None and not (isinstance(value, str) and _WORD.fullmatch(value) and ".." not in value):
            return key
    return None


def _strangers(only: tuple[int, frozenset[str]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments that are not among these. Salt's own ``__pub_*`` keywords tell who called."""
    positions, keywords = only
    found = [key for key in kwargs if key not in keywords and not key.startswith("__pub_")]
    return [*(repr(arg) for arg in args[positions:]), *found]


def _all(pattern: re.Pattern[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    values = [*args, *(value for key, value in kwargs.items() if not key.startswith("__pub_"))]
    return all(_fits(pattern, value) for value in values)


def _fits(pattern: re.Pattern[str], value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_fits(pattern, item) for item in value)
    if isinstance(value, str):
        return pattern.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)


def _matches(fun: str, globs: Sequence[str]) -> str | None:
    return next((glob for glob in globs if fnmatchcase(fun, glob)), None)


def _why(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed) -> str:
    if fun not in ALWAYS and (glob := _matches(fun, sealed.deny)):
        return f"its recipe denies {fun} (guard: deny: {glob})"
    if fun == _PREVIEW or (fun in _DRY_RUNS and _is_test(fun, kwargs)):
        return str(_no_dry_run(fun, args, kwargs, sealed))
    if fun in _DRY_RUNS and any(key.lower() == "test" and value is not False for key, value in kwargs.items()):
        return f"{fun} would change this machine: nothing but the keyword test=True makes a dry run"
    if fun in _CLASSES:
        return f"{fun} could change this machine with these arguments: {_harm(fun, args, kwargs)}"
    if trap := _matches(fun, tuple(TRAPS)):
        return f"{fun} could change this machine: {TRAPS[trap]}"
    module = fun.partition(".")[0]
    if module in READ or module in OPERATE or module == "cmd":
        return f"{fun} would change this machine"
    return f"{fun} is not known to leave this machine as it is"


def _arguments(positions: int, keywords: frozenset[str]) -> str:
    if keywords:
        return f"only {', '.join(sorted(keywords))}"
    return "no keywords" if positions else "no arguments"


def _instead(sealed: Sealed) -> str:
    if sealed.fleet:
        return f"rebuild the fleet instead (salt-run fleet.rebuild {sealed.fleet})"
    return f"bake and roll the recipe instead (salt-run image.bake {sealed.recipe})"
