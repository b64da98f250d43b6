"""Which images are kept, and why: from data to a verdict for each image. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How long the images of a recipe are kept.

    An image stays if either setting keeps it. Both None: all images stay.
    """

    keep: int | None = None
    """Number of the newest images that are neither revoked nor failed."""
    keep_for: float | None = None
    """Seconds since the bake."""


@dataclass(frozen=True)
class Candidate:
    """What decides whether an image is kept."""

    digest: str
    recipe: str
    created: float
    """Seconds since the epoch."""
    revoked: bool = False
    needed: tuple[str, ...] = ()
    """Who needs it, for the reason: ``fleet web``."""
    failed: bool = False
    """Whether its tests failed."""


@dataclass(frozen=True)
class Verdict:
    """Whether an image is kept, and why."""

    digest: str
    kept: bool
    reason: str


def decide(candidates: Iterable[Candidate], rules: Mapping[str, Rule], now: float) -> list[Verdict]:
    """Return a verdict for each image. ``rules``: by recipe; without one, all of its images stay. ``now``: seconds."""
    of_recipe: dict[str, list[Candidate]] = {}
    for image in sorted(candidates, key=lambda image: (-image.created, image.digest)):
        of_recipe.setdefault(image.recipe, []).append(image)
    return [
        verdict
        for recipe, images in sorted(of_recipe.items())
        for verdict in _decide(images, rules.get(recipe), recipe, now)
    ]


def _decide(images: Sequence[Candidate], rule: Rule | None, recipe: str, now: float) -> Iterator[Verdict]:
    """Yield the verdicts for the images of one recipe, newest first. Revoked and failed images have no rank."""
    good = (image for image in images if not image.revoked and not image.failed)
    ranks = {image.digest: rank for rank, image in enumerate(good, 1)}
    for image in images:
        rank, age = ranks.get(image.digest), now - image.created
        reason = _always_kept(image, rule, recipe) or _kept(rank, age, rule or Rule())
        yield Verdict(image.digest, bool(reason), reason or _not_kept(image, rank, age, rule or Rule()))


def _always_kept(image: Candidate, rule: Rule | None, recipe: str) -> str:
    """Return why an image is kept regardless of its rank and age, or ''."""
    if image.needed:
        return f"needed by {', '.join(image.needed)}"
    if rule is None:
        return f"recipe {recipe} is not in the pillar, so nothing says how long its images are kept"
    return "" if rule != Rule() else f"recipe {recipe} has neither keep nor keep_for"


def _kept(rank: int | None, age: float, rule: Rule) -> str:
    """Return why an image is kept for its rank or its age, or ''."""
    if rule.keep is not None and rank is not None and rank <= rule.keep:
        return f"number {rank} of the newest {rule.keep}"
    if rule.keep_for is not None and age <= rule.keep_for:
        return f"{duration(age)} old, kept for {duration(rule.keep_for)}"
    return ""


def _not_kept(image: Candidate, rank: int | None, age: float, rule: Rule) -> str:
    """Return why an image is not kept."""
    status = f"number {rank}" if rank else "revoked" if image.revoked else "failed"
    by_rank = [] if rule.keep is None else [f"{status}, and the newest {rule.keep} are kept"]
    by_age = [] if rule.keep_for is None else [f"{duration(age)} old, and kept for {duration(rule.keep_for)}"]
    return "; ".join(by_rank + by_age)


def duration(seconds: float) -> str:
    """Return seconds as text with one unit or two: 7776001 s is ``90d``, 5400 s is ``1h30m``."""
    left = max(0, int(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if left >= size:
            more = left % size // part
            return f"{left // size}{unit}" + (f"{more}{smaller}" if more else "")
    return f"{left}s"
