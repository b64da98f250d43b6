"""What chance draws: faults, strategies, commands and meddlers. One seed draws the same every time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from saltext.immutable.spec.model import Amount, Budgets, Fleet, Settings, Strategy, TrafficSpec, Window
from saltext.immutable.spec.strategy import conflicts

from .estates import FLEET
from .faults import Faults

IMAGES = ["a" * 64, "b" * 64, "c" * 64, "d" * 64]
SIZES = [1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8, 12]
WINDOWS = (Window("*/15 * * * *", 480.0),)
COMMANDS = {
    "roll": 40,
    "rollback": 14,
    "scale": 12,
    "replace": 8,
    "repair": 8,
    "continue_rollout": 4,
    "abort": 2,
    "back": 2,
    "approve": 2,
    "destroy": 4,
}


def troubles(chance: random.Random) -> Faults:
    """Draw what goes wrong in one world."""

    def rarely(most: float) -> float:
        return chance.choice([0.0, 0.0, most])

    ill = {image: chance.choice(["unhealthy", "wrong", "crashes", "dies", "", "", "", ""]) for image in IMAGES[1:]}
    return Faults(
        launch_fails=rarely(0.1),
        launch_hangs=rarely(0.1),
        never_up=rarely(0.1),
        start_lost=rarely(0.3),
        start_twice=rarely(0.5),
        unanswered=rarely(0.2),
        probe_hangs=rarely(0.02),
        rumour=rarely(0.5),
        intruder=rarely(0.05),
        dies=rarely(0.1),
        falls_ill=rarely(0.1),
        no_answer=rarely(0.1),
        list_fails=rarely(0.05),
        list_misses=rarely(0.1),
        list_overtaken=rarely(0.2),
        destroy_fails=rarely(0.3),
        traffic_fails=rarely(0.1),
        traffic_hangs=rarely(0.05),
        slandered=rarely(0.1),
        forgets=rarely(0.1),
        host_boots=rarely(0.1),
        tainted=rarely(0.2),
        jumps=rarely(0.2),
        lags=chance.random() < 0.3,
        neighbour=rarely(0.2),
        ill=ill,
    )


def amount(chance: random.Random, *numbers: int) -> Amount:
    """Draw a number of machines, or a share."""
    return (
        Amount(chance.choice([10, 25, 50, 100]), percent=True)
        if chance.random() < 0.4
        else Amount(chance.choice(numbers))
    )


def strategy(chance: random.Random, traffic: bool) -> Strategy:
    """Draw a strategy; it may be conflicts for some sizes."""
    blue_green = chance.random() < 0.15
    steps: tuple[Amount, ...] = ()
    if not blue_green and chance.random() < 0.4:
        first = chance.choice([(Amount(1),), (Amount(25, True),), (Amount(1), Amount(50, True))])
        steps = (*first, Amount(100, percent=True))
    return Strategy(
        max_surge=amount(chance, 0, 1, 1, 2, 50),
        max_unavailable=amount(chance, 0, 0, 0, 1, 2),
        steps=steps,
        soak=chance.choice([0.0, 0.0, 15.0, 60.0]),
        approve=bool(steps or blue_green) and chance.random() < 0.3,
        blue_green=blue_green,
        ready_within=30.0,
        min_ready=chance.choice([0.0, 0.0, 8.0]),
        unhealthy_for=chance.choice([5.0, 10.0]),
        progress_within=90.0,
        max_failures=chance.choice([Amount(0), Amount(0), Amount(1), Amount(3), Amount(50, percent=True)]),
        on_failure=chance.choice(["rollback", "rollback", "pause"]),
        drain_within=chance.choice([0.0, 5.0, 20.0]),
        keep_old=chance.choice([0.0, 20.0, 120.0]) if traffic else 0.0,
        skip_matching=chance.random() < 0.85,
        protected=chance.choice(["wait", "skip"]),
        fast_rollback=chance.choice([0, 1, 3]),
    )


def fleet(chance: random.Random) -> Fleet:
    """Draw a fleet that its strategy can ever bring anywhere."""
    while True:
        traffic = chance.random() < 0.6
        found = replace(
            FLEET,
            size=chance.choice(SIZES),
            strategy=strategy(chance, traffic),
            traffic=TrafficSpec("simulated") if traffic else None,
            max_age=chance.choice([None, None, 600.0]),
            windows=WINDOWS if chance.random() < 0.1 else (),
            budgets=Budgets(Amount(2), Amount(1)) if chance.random() < 0.15 else Budgets(),
        )
        if not any(conflicts(found)):
            return found


def settings(chance: random.Random) -> Settings:
    """Draw what the master's config says."""
    return Settings(budgets=Budgets(Amount(3), Amount(2)) if chance.random() < 0.1 else Budgets())


def size(chance: random.Random, wanted: Fleet) -> int:
    """Draw a size that the fleet's strategy can do with."""
    fitting = [one for one in SIZES if not any(conflicts(replace(wanted, size=one)))]
    return chance.choice(fitting)


def command(chance: random.Random) -> str:
    """Draw a command."""
    return chance.choices(list(COMMANDS), list(COMMANDS.values()))[0]


def told(wanted: Fleet) -> dict[str, Any]:
    """Return what a failing seed prints of its fleet."""
    return {key: value for key, value in vars(wanted.strategy).items() if value != getattr(Strategy(), key)}
