"""Random commands in a world where everything goes wrong: it ends, in order, with nothing leaked.

SIM_SEEDS=5000 runs more; SIM_SEED=17 replays one.
"""

from __future__ import annotations

import os
import random

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.operations import Failed
from saltext.immutable.spec.model import Amount, Strategy

from .simulated import Faults, Killed, Simulated

BLOCKS = 20
COUNT = int(os.environ.get("SIM_SEEDS", "100"))
IMAGES = ["a" * 64, "b" * 64, "c" * 64, "d" * 64]


def troubles(chance: random.Random) -> Faults:
    """Draw what goes wrong in one world."""

    def rarely(most: float) -> float:
        return chance.choice([0.0, 0.0, most])

    ill = {image: chance.choice(["unhealthy", "wrong", "crashes", "dies", "", "", ""]) for image in IMAGES[1:]}
    return Faults(
        launch_fails=rarely(0.1),
        launch_hangs=rarely(0.1),
        never_up=rarely(0.1),
        start_lost=rarely(0.3),
        unanswered=rarely(0.2),
        probe_hangs=rarely(0.02),
        rumour=rarely(0.5),
        intruder=rarely(0.05),
        dies=rarely(0.1),
        no_answer=rarely(0.1),
        list_fails=rarely(0.05),
        destroy_fails=rarely(0.3),
        killed=rarely(0.02),
        tainted=rarely(0.2),
        lags=chance.random() < 0.3,
        ill=ill,
    )


def command(estate, name, *args):
    """Give a command, again and again while it is killed; return how it ended.

    Who carries on waits anew for what boots: who is killed every few seconds, for ever, ends never.
    """
    for attempt in range(200):
        if attempt == 100:
            estate.world.faults.killed = 0.0
        try:
            getattr(estate.operations(), name)("web", *args)
            return "done"
        except Failed:
            return estate.ledger.rollouts()[0].outcome
        except SaltInvocationError:
            return "refused"
        except (Killed, CommandExecutionError):
            continue
    raise AssertionError("it never ends")


def live(estate, chance: random.Random) -> None:
    """Give a few commands, then let it all go."""
    for image in IMAGES:
        estate.publish(image)
        estate.resize(chance.choice([1, 2, 3, 3, 5]))
        name = chance.choice(["roll", "roll", "roll", "rollback", "destroy"])
        outcome = command(estate, name)
        assert outcome in ("done", "rolled back", "paused", "refused")
        if outcome == "done" and name == "roll":
            assert len(estate.ledger.records()) == estate.fleet.size
            assert estate.ledger.generation(estate.ledger.lineage()[-1]).image == image
        if outcome in ("rolled back", "paused"):
            assert estate.ledger.rollouts()[0].reason
        if outcome in ("done", "rolled back") and not estate.world.faults.lags:
            estate.assert_in_order()
    estate.world.faults = Faults()
    estate.world.now += 60
    assert command(estate, "destroy") == "done"
    assert not estate.world.machines
    assert not estate.world.keys
    assert not estate.ledger.records()
    assert not estate.ledger.tainted(), "a taint goes with its machine"


def one(estate, seed: int) -> None:
    chance = random.Random(seed)
    strategy = Strategy(
        max_surge=Amount(chance.choice([1, 1, 2, 50]), percent=False),
        max_unavailable=Amount(chance.choice([0, 0, 1])),
        ready_within=30.0,
        progress_within=90.0,
        max_failures=Amount(chance.choice([0, 0, 1, 3])),
        on_failure=chance.choice(["rollback", "rollback", "pause"]),
    )
    live(estate(Simulated(seed, troubles(chance)), strategy=strategy), chance)


SEEDS = [int(os.environ["SIM_SEED"])] if "SIM_SEED" in os.environ else range(COUNT)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_goes_wrong_it_ends_in_order(estate, block):
    for seed in SEEDS[block::BLOCKS]:
        try:
            one(estate, seed)
        except BaseException:
            print(f"replay with SIM_SEED={seed}")
            raise
