"""Random fleets, strategies and commands in a world where everything goes wrong: it ends, in order, nothing leaked.

The full run lives more of them. SIM_SEEDS=50000 lives so many at once; SIM_SEED=17 replays one. A life has about four
rollouts.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter

import pytest
from support.slices import full

from . import chances, lives
from .crowds import in_time, on_every_core

DAILY, FULL, PART = 3_000, 25_000, 5_500
COUNT = int(os.environ.get("SIM_SEEDS", DAILY))
LONG = full("lives many more lives", minutes=5, apart=True)
MORE = [range(first, min(first + PART, FULL)) for first in range(DAILY, FULL, PART)]
ROLLOUTS = 3.5
"""In a life, at least, on the average of many."""
BLOCK = 50


@pytest.mark.parametrize("seeds", [range(COUNT), *(pytest.param(part, marks=LONG) for part in MORE)], ids=str)
def test_whatever_goes_wrong_it_ends_in_order(capsys, seeds: range) -> None:
    if "SIM_SEED" in os.environ:
        lives.one(int(os.environ["SIM_SEED"]))
        return
    blocks = [seeds[first : first + BLOCK] for first in range(0, len(seeds), BLOCK)]
    found = on_every_core(lived, blocks)
    failed = [line for _, lines in found for line in lines]
    counted = sum((count for count, _ in found), Counter())
    with capsys.disabled():
        told = ", ".join(f"{number} {what}" for what, number in sorted(counted.items()))
        print(f" {counted['rollouts']} rollouts in {len(seeds)} lives: {told} ", end="")
    assert not failed, f"{len(failed)} of {len(seeds)} failed; replay one with SIM_SEED:\n" + "\n".join(failed[:20])
    assert len(seeds) < 500 or counted["rollouts"] > len(seeds) * ROLLOUTS
    for what in ("killed", "fenced", "overtaken", "protected", "resized midway", "went back", "lost", "host booted"):
        assert len(seeds) < 500 or counted[what], f"{what} was never tried"


def lived(seeds: range) -> tuple[Counter[str], list[str]]:
    """Live a block of lives; return what was counted, and what went wrong."""
    counted, failed = Counter[str](), []
    for seed in seeds:
        try:
            with in_time():
                counted += lives.one(seed)
        except BaseException as err:
            where = traceback.extract_tb(err.__traceback__)[-1]
            said = str(err).splitlines()[0] if str(err) else ""
            failed.append(f"SIM_SEED={seed}: {type(err).__name__}: {said} ({where.name}, line {where.lineno})")
    return counted, failed


def test_a_seed_lives_the_same_life_twice() -> None:
    assert lives.one(7) == lives.one(7)


def test_chance_draws_every_knob() -> None:
    drawn = [chances.fleet(chances.random.Random(seed)) for seed in range(300)]
    knobs = vars(drawn[0].strategy)
    assert {knob for knob in knobs if len({getattr(one.strategy, knob) for one in drawn}) == 1} == {
        "ready_within",
        "progress_within",
    }
