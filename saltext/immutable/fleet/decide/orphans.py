"""Which keys and machines without an owner are removed, when and why. Pure.

They are reported first, and removed if they still have no owner after ``orphan_grace``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from saltext.immutable.spec.model import Fleet


@dataclass(frozen=True)
class Orphan:
    """A key or a machine that is not in the store."""

    minion_id: str
    what: Literal["key", "machine"]
    fleet: str
    """The fleet that its id or its tag names."""
    known: bool = True
    """It was ours: our journal has the key, or the machine has our installation's tag."""


@dataclass(frozen=True)
class Decision:
    """An orphan, since when it has been seen, and what to do about it."""

    orphan: Orphan
    since: float
    remove: bool
    reason: str


def orphan_keys(
    ids: Collection[str], fleets: Collection[Fleet], there: Collection[str], named: Collection[str]
) -> list[Orphan]:
    """Return the ids with a key that have the form of these fleets' machines and are not one of them.

    ``there``: minion ids in the store or in a provider's list; ``named``: those that our journal knows.
    """
    found: list[Orphan] = []
    for fleet in sorted(fleets, key=lambda one: one.name):
        pattern = _pattern(fleet)
        taken = {orphan.minion_id for orphan in found}
        for minion_id in sorted(set(ids) - set(there) - taken):
            if pattern is not None and pattern.fullmatch(minion_id):
                found.append(Orphan(minion_id, "key", fleet.name, minion_id in named))
    return found


def _pattern(fleet: Fleet) -> re.Pattern[str] | None:
    """Return the pattern of the ids of a fleet's machines, or None if the pillar does not define it."""
    before, token, after = fleet.minion_id.partition("{token}")
    return re.compile(f"{re.escape(before)}[0-9a-f]{{16}}{re.escape(after)}") if token else None


def decide(
    orphans: Sequence[Orphan], before: Mapping[tuple[str, str], float], fleets: Mapping[str, Fleet], now: float
) -> list[Decision]:
    """Return what is removed: what was ours and still has no owner after its fleet's ``orphan_grace``.

    ``before``: since when each (what, minion id) is seen.
    """
    alone = Counter(orphan.fleet for orphan in orphans if orphan.what == "machine")
    crowds = {name for name, number in alone.items() if name in fleets and number > _few(fleets[name])}
    return [_decide(one, before.get((one.what, one.minion_id)), fleets.get(one.fleet), crowds, now) for one in orphans]


def _few(fleet: Fleet) -> int:
    """Return how many machines may be missing from the store; if more are, the store is what is wrong."""
    return max(1, fleet.sick_limit.up(fleet.size))


def _decide(
    orphan: Orphan, before: float | None, fleet: Fleet | None, crowds: Collection[str], now: float
) -> Decision:
    since = now if before is None else min(before, now)
    patience = fleet.orphan_grace if fleet else Fleet.orphan_grace
    thing = f"a {orphan.what} of fleet {orphan.fleet} that is not in the store"
    if not orphan.known:
        return Decision(orphan, since, False, f"it looks like {thing}, but our journal does not know it: it is left")
    if orphan.what == "machine" and orphan.fleet in crowds:
        return Decision(
            orphan, since, False, f"{thing}, like too many others: it is left; check that this is the right store"
        )
    if before is None:
        return Decision(orphan, since, False, f"{thing}, seen for the first time; it will be removed in {patience:g} s")
    left = since + patience - now
    if left > 0:
        return Decision(orphan, since, False, f"{thing}; it will be removed in {left:.0f} s")
    return Decision(orphan, since, True, f"{thing} for {now - since:.0f} s")
