"""The guard's policy: may this call run on a sealed machine? A pure function of call and seal that returns the reason.

`function_tables` says what each function of Salt does; this file also looks at the arguments. A function that is in no
table counts as a change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from saltext.immutable.guard.function_tables import (
    DRY_RUN_KEYWORDS,
    DRY_RUNS,
    ENVIRONMENTS,
    LIMITED,
    NARROW,
    OPERATE,
    PLAIN_NAMES,
    READ,
    SINGLE_WORDS,
    TAGS_OF_THE_MINION,
    TRAPS,
)
from saltext.immutable.guard.reach import processes
from saltext.immutable.guard.reach.units import unfit
from saltext.immutable.patterns import ENVIRONMENT

Class = Literal["read", "operate", "change"]

ANSWERS_WHEN_DAMAGED = ("test.ping", "immutable.status")
_ASKS = "immutable.answer"
"""By this function the master asks whatever it asks; each of its questions passes the guard by itself."""
ALWAYS = frozenset({*ANSWERS_WHEN_DAMAGED, _ASKS, "immutable.services", "saltutil.find_job", "saltutil.running"})
"""Without these a machine cannot be managed, so ``deny`` does not apply to them."""


def full_names(table: Mapping[str, str]) -> list[str]:
    """Return the full names (``module.function``) of the functions in a table."""
    return [f"{module}.{name}" for module, found in table.items() for name in found.split()]


_CLASSES: dict[str, Class] = {
    **dict.fromkeys(full_names(READ), "read"),
    **dict.fromkeys(full_names(OPERATE), "operate"),
}
_LIMITED = {fun: (positions, frozenset(keywords.split())) for fun, (positions, keywords, _) in LIMITED.items()}
_DRY_RUNS = {
    fun: (positions, frozenset(f"{keywords} {DRY_RUN_KEYWORDS}".split()))
    for fun, (positions, keywords) in DRY_RUNS.items()
}
_PREVIEW = "immutable.preview"
_SINGLE_WORDS = frozenset(full_names(SINGLE_WORDS))
_PLAIN_NAMES = frozenset(fun for fun in _CLASSES if fun.startswith(f"{PLAIN_NAMES}."))
_OF_UNITS = frozenset(fun for fun in _PLAIN_NAMES if _CLASSES[fun] == "operate")
_NARROW = {fun: (positions, frozenset(keywords.split())) for fun, (positions, keywords) in NARROW.items()}
_NAMES_UNITS = _OF_UNITS | {"service.disable", "service.enable", "service.mask", "service.unmask"}
_ENDS_UNITS = frozenset({"service.disable", "service.mask", "service.stop"})
_WORD = re.compile(r"[^-\s]\S*")
_NAME = re.compile(r"[^-/\s][^/\s]*")
_SLS = re.compile(r"(?![./])(?!.*(\.\.|//))[^\s\0]+")
"""Salt reads a dot as a slash."""


@dataclass(frozen=True)
class Sealed:
    """The machine that is asked, and what its recipe adds to the tables."""

    image: str
    """Its short name: ``web@3f2a9c1d04be``."""
    recipe: str
    fleet: str | None = None
    """None: no fleet launched this machine."""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Globs of function names; ``deny`` wins."""
    dry_runs: bool = True
    """Whether states may run with ``test=True``."""
    syncs: bool = False
    """Whether a highstate, with ``test=True`` too, syncs custom modules first (``autoload_dynamic_modules``). Executors
    are among them."""


def refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed) -> str | None:
    """Return why this call may not run on this machine and what to do instead; None if it may run.

    ``args`` and ``kwargs``: as the function would get them, with Salt's ``__pub_*`` keywords.
    """
    if classify(fun, args, kwargs, sealed) != "change":
        return None
    return sentence(_why(fun, args, kwargs, sealed), sealed)


def sentence(why: str, sealed: Sealed) -> str:
    """Return the sentence of a refusal: which image and fleet, why, and what to do instead."""
    whose = f" of fleet {sealed.fleet}" if sealed.fleet else ""
    return f"sealed: image {sealed.image}{whose}: {why}; {_instead(sealed)}"


def classify(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None = None) -> Class:
    """Return the class of a call: what it does to the machine it runs on. Unknown or denied functions are a change.

    A function that only the recipe's ``allow`` permits is *operate*, so that its calls are recorded.
    """
    if sealed is not None and sealed.deny and fun not in ALWAYS and _matches(fun, sealed.deny):
        return "change"
    found = _CLASSES.get(fun, "change")
    if found == "change":
        found = "read" if _is_dry_run(fun, args, kwargs, sealed) else "change"
    elif _harmful_arguments(fun, args, kwargs) or (fun == _PREVIEW and _no_dry_run(fun, args, kwargs, sealed)):
        found = "change"
    if found == "change" and sealed is not None and _matches(fun, sealed.allow) and not _too_wide(fun, args, kwargs):
        return "operate"
    return found


def damaged(fun: str, reason: str) -> str | None:
    """Return why this call may not run on a machine whose seal is damaged; None for the functions that report it.

    ``reason``: what is damaged.
    """
    if fun in ANSWERS_WHEN_DAMAGED or fun == _ASKS:
        return None
    return f"sealed: {reason}; only {' and '.join(ANSWERS_WHEN_DAMAGED)} run; replace this machine"


def _harmful_arguments(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the arguments of a function that is in the tables; None if nothing is."""
    if fun in _LIMITED and _other_arguments(_LIMITED[fun], args, kwargs):
        return f"on a sealed machine it takes {_arguments(*_LIMITED[fun])}: {LIMITED[fun][2]}"
    if keyword := _environment_with_path(fun, args, kwargs):
        return f"on a sealed machine it takes a plain name as {keyword}: an environment is a folder of caches"
    if why := processes.unfit(fun, args, kwargs):
        return why
    if fun in _PLAIN_NAMES and not _all(_NAME, args, kwargs):
        return "on a sealed machine it takes only plain names: anything else could be an option or a path"
    if fun in _OF_UNITS and (why := unfit(unit(args, kwargs), ends_unit(fun))):
        return why
    if fun in _SINGLE_WORDS and not _all(_WORD, args, kwargs):
        return "on a sealed machine it takes only single words: anything else could hold options"
    return _harmful_event(args, kwargs) if fun == "event.send" else None


def _too_wide(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return why not even a recipe can allow a call of a narrow function with these arguments; None if it can."""
    if fun not in _NARROW:
        return None
    if _other_arguments(_NARROW[fun], args, kwargs):
        return f"where its recipe allows it, it takes {_arguments(*_NARROW[fun])}"
    if not _all(_NAME, args, kwargs):
        return "on a sealed machine it takes only plain names: anything else could be an option or a path"
    return unfit(unit(args, kwargs), ends_unit(fun)) if fun in _NAMES_UNITS else None


def operates_unit(fun: str) -> bool:
    """Tell whether a function operates a unit of systemd."""
    return fun in _OF_UNITS


def names_unit(fun: str) -> bool:
    """Tell whether a function operates a unit, or changes whether it may start."""
    return fun in _NAMES_UNITS


def ends_unit(fun: str) -> bool:
    """Tell whether a function ends a unit, or lets it not start again."""
    return fun in _ENDS_UNITS


def unit(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the name of the unit that a call operates."""
    return args[0] if args else kwargs.get("name")


def _harmful_event(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    tag = args[0] if args else kwargs.get("tag")
    if len(args) > 2 or "preload" in kwargs:
        return "preload sends any request to the master"
    if not isinstance(tag, str) or tag.startswith(TAGS_OF_THE_MINION):
        return "the minion itself acts on an event of this tag"
    return None


def _is_dry_run(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None) -> bool:
    """Only the keyword ``test=True`` counts: Salt's functions differ in what ``test=1`` or ``TEST=True`` means."""
    return fun in _DRY_RUNS and _is_test(fun, kwargs) and not _no_dry_run(fun, args, kwargs, sealed)


def _no_dry_run(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: Sealed | None) -> str | None:
    """Return why this call may not run even with ``test=True``, or None."""
    if sealed is not None and not sealed.dry_runs:
        return f"its recipe refuses dry runs, which run Jinja and the commands of unless and onlyif ({fun})"
    if sealed is not None and sealed.syncs and _is_highstate(fun, args, kwargs):
        return f"{fun} syncs custom modules first; set autoload_dynamic_modules: False in the config of this minion"
    if fun == _PREVIEW:
        return None
    if others := _other_arguments(_DRY_RUNS[fun], args, kwargs):
        return f"a dry run by {fun} takes {_arguments(*_DRY_RUNS[fun])}, not {', '.join(others)}"
    if keyword := _environment_with_path(fun, args, kwargs):
        return f"a dry run by {fun} takes a plain name as {keyword}"
    wrong = next((name for name in _sls(fun, args, kwargs) if not _SLS.fullmatch(name)), None)
    return f"a dry run by {fun} takes names of SLS files, not {wrong[:40]!r}" if wrong else None


def _sls(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the names of SLS files that a dry run gets, whatever their form is."""
    positions, keywords = _DRY_RUNS[fun]
    if "mods" not in keywords:
        return []
    given = args[positions - 1] if len(args) >= positions else kwargs.get("mods")
    names = given if isinstance(given, list | tuple) else str(given or "").split(",")
    return [str(name).strip() for name in names if name != ""]


def _is_highstate(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a call applies the top file. ``state.apply`` without SLS names does, and a preview may."""
    if fun in ("state.apply", "state.test"):
        return not (args[0] if args else kwargs.get("mods"))
    return fun in ("state.highstate", _PREVIEW)


def _is_test(fun: str, kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("test", fun == "state.test") is True


def _environment_with_path(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the argument that could lead out of the minion's caches: an environment is a folder there."""
    given = [(key, kwargs.get(key)) for key in ("saltenv", "pillarenv")]
    given += [("environment", args[place]) for place in ENVIRONMENTS.get(fun, ()) if place < len(args)]
    for key, value in given:
        is_name = type(value) in (str, int, float)  # the command line makes a number of saltenv=2024
        if value is not None and not (is_name and ENVIRONMENT.fullmatch(str(value))):
            return key
    return None


def _other_arguments(allowed: tuple[int, frozenset[str]], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments that are not allowed. Salt's own ``__pub_*`` keywords, which tell who called, always are.

    ``allowed``: how many positional arguments, and which keywords.
    """
    positions, keywords = allowed
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
        return f"{fun} would change this machine: only the keyword test=True makes it a dry run"
    if _matches(fun, sealed.allow) and (wide := _too_wide(fun, args, kwargs)):
        return f"{fun} could change more of this machine with these arguments: {wide}"
    if fun in _CLASSES:
        return f"{fun} could change this machine with these arguments: {_harmful_arguments(fun, args, kwargs)}"
    if trap := _matches(fun, tuple(TRAPS)):
        return f"{fun} could change this machine: {TRAPS[trap]}"
    module = fun.partition(".")[0]
    if module in READ or module in OPERATE or module == "cmd":
        return f"{fun} would change this machine"
    return f"{fun} is unknown to the guard, and unknown functions count as a change (recipe: guard: allow)"


def _arguments(positions: int, keywords: frozenset[str]) -> str:
    if keywords:
        return f"only {', '.join(sorted(keywords))}"
    return "no keywords" if positions else "no arguments"


def _instead(sealed: Sealed) -> str:
    if sealed.fleet:
        return f"rebuild the fleet instead (salt-run fleet.rebuild {sealed.fleet})"
    return f"bake and roll the recipe instead (salt-run image.bake {sealed.recipe})"
