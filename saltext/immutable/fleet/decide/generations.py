"""Decide under which generation a machine is written back that is not in the store, and which one is good. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def generation_of(image: str, tagged: int, known: Mapping[int, str]) -> int:
    """Return the number of the generation of a machine that the store does not know.

    ``image``: the digest that the machine was launched from; ``tagged``: the number in its tag; ``known``: number to
    image of the generations in the store. The tag is right unless the store has given its number to another image
    since; then it is the newest generation of the same image, or a new one.
    """
    same = [number for number, digest in known.items() if digest == image]
    if tagged in same or (tagged not in known and not same):
        return tagged
    return max(same) if same else max(known) + 1


def current_generation(machines: Mapping[str, int]) -> int | None:
    """Return the generation of most machines (minion id to number), on a tie the older one; None if there are none.

    The newer one may be that of a rollout which had not ended.
    """
    counts = {number: list(machines.values()).count(number) for number in set(machines.values())}
    return min(counts, key=lambda number: (-counts[number], number), default=None)


def lineage_to(lineage: Sequence[int], current: int) -> list[int]:
    """Return the good generations of a fleet that runs ``current``, as the store has them from earlier.

    [1, 2] with machines of 3 gives [1, 2, 3]: a roll is missing; with machines of 1 it gives [1]: a rollback is.
    """
    return [*lineage[: lineage.index(current)], current] if current in lineage else [*lineage, current]
