"""Which images are kept: pure, from what is known of them to a verdict each, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How long the images of a recipe are kept; what either keeps stays. Both None: all stay, for ever."""

    keep: int | None = None
    """Of the newest that are neither revoked nor failed, so many."""
    keep_for: float | None = None
    """Seconds since its bake."""


@dataclass(frozen=True)
class Candidate:
    """An image as far as it matters whether it is kept."""

    digest: str
    recipe: str
    created: float
    """Seconds since the epoch."""
    revoked: bool = False
    needed: tuple[str, ...] = ()
    """Who needs it."""
    failed: bool = False
    """Whether its tests failed."""


@dataclass(frozen=True)
class Verdict:
    """Whether an image is kept, and why."""

    digest: str
    kept: bool
    reason: str


def judge(candidates: Iterable[Candidate], rules: Mapping[str, Rule], now: float) -> list[Verdict]:
    """Return a verdict on each image; of a recipe without a rule all stay."""
    of_recipe: dict[str, list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: (-one.created, one.digest)):
        of_recipe.setdefault(one.recipe, []).append(one)
    return [
        verdict
        for recipe, found in sorted(of_recipe.items())
        for verdict in _judge(found, rules.get(recipe), recipe, now)
    ]


def _judge(found: Sequence[Candidate], rule: Rule | None, recipe: str, now: float) -> Iterator[Verdict]:
    """Judge the images of one recipe, the newest first. One that must not be rolled is none of the newest."""
    good = (one for one in found if not one.revoked and not one.failed)
    ranks = {one.digest: rank for rank, one in enumerate(good, 1)}
    for one in found:
        rank, age = ranks.get(one.digest), now - one.created
        why = _unruled(one, rule, recipe) or _kept(rank, age, rule or Rule())
        yield Verdict(one.digest, bool(why), why or _beyond(one, rank, age, rule or Rule()))


def _unruled(one: Candidate, rule: Rule | None, recipe: str) -> str:
    """Return why an image is kept whatever its rank and age; '' if they count."""
    if one.needed:
        return f"needed by {', '.join(one.needed)}"
    if rule is None:
        return f"recipe {recipe} is not in the pillar, so nothing says how long its images are kept"
    return "" if rule != Rule() else f"recipe {recipe} has neither keep nor keep_for"


def _kept(rank: int | None, age: float, rule: Rule) -> str:
    """Return why an image is kept for its rank or its age; '' if it is not."""
    if rule.keep is not None and rank is not None and rank <= rule.keep:
        return f"number {rank} of the newest {rule.keep}"
    if rule.keep_for is not None and age <= rule.keep_for:
        return f"{days(age)} old, kept for {days(rule.keep_for)}"
    return ""


def _beyond(one: Candidate, rank: int | None, age: float, rule: Rule) -> str:
    place = f"number {rank}" if rank else "revoked" if one.revoked else "failed"
    by_rank = [] if rule.keep is None else [f"{place}, and the newest {rule.keep} are kept"]
    by_age = [] if rule.keep_for is None else [f"{days(age)} old, and kept for {days(rule.keep_for)}"]
    return "; ".join(by_rank + by_age)


def days(seconds: float) -> str:
    """Return a time as people write it, with one unit or two: 7776001 s is ``90d``, 5400 s ``1h30m``."""
    left = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if left >= size:
            more = left % size // part
            return f"{left // size}{unit}" + (f"{more}{smaller}" if more else "")
    return f"{left}s"
