"""Random fleets, strategies and commands in a world where everything goes wrong: it ends, in order, nothing leaked.

SIM_SEEDS=50000 lives more lives; SIM_SEED=17 replays one. A life has about four rollouts.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter

from . import chances, lives
from .crowds import in_time, on_every_core

COUNT = int(os.environ.get("SIM_SEEDS", "5300"))
ROLLOUTS = 3.7
"""In a life, at least, on the average of many."""
BLOCK = 50


def test_whatever_goes_wrong_it_ends_in_order(capsys) -> None:
    if "SIM_SEED" in os.environ:
        lives.one(int(os.environ["SIM_SEED"]))
        return
    blocks = [range(first, min(first + BLOCK, COUNT)) for first in range(0, COUNT, BLOCK)]
    found = on_every_core(lived, blocks)
    failed = [line for _, lines in found for line in lines]
    counted = sum((count for count, _ in found), Counter())
    with capsys.disabled():
        told = ", ".join(f"{number} {what}" for what, number in sorted(counted.items()))
        print(f" {counted['rollouts']} rollouts in {COUNT} lives: {told} ", end="")
    assert not failed, f"{len(failed)} of {COUNT} failed; replay one with SIM_SEED:\n" + "\n".join(failed[:20])
    assert COUNT < 500 or counted["rollouts"] > COUNT * ROLLOUTS
    for what in ("killed", "fenced", "overtaken", "protected", "resized midway"):
        assert COUNT < 500 or counted[what], f"{what} was never tried"


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
