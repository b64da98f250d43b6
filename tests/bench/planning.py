"""What one plan costs: fleets in the middle of a roll, against a bare walk over the same machines."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy
from tests.support.estate import Estate

NOW = 10_000.0
RUNS = 7


def ten_thousand(estate: Estate) -> tuple[float, float]:
    """Return the CPU seconds of a plan for 10,000 machines, and of a walk over them that only counts."""
    machines = in_the_middle(10_000)
    return _best(lambda: planned(machines, 10_000)), _best(lambda: _counted(machines))


def growth(estate: Estate) -> tuple[float, float]:
    """Return the CPU seconds a machine of a plan for 100,000 machines, and for 10,000."""
    return a_machine(100_000), a_machine(10_000)


def a_machine(size: int) -> float:
    """Return what a plan for a fleet of this size costs a machine, in CPU seconds."""
    machines = in_the_middle(size)
    return _best(lambda: planned(machines, size)) / size


def planned(machines: Sequence[Machine], size: int) -> int:
    """Plan once; return how many actions it names."""
    fleet = Fleet("web", "web", size, "web-{token}", ProviderSpec("p"), strategy=Strategy(max_surge=Amount(10, True)))
    rollout = Rollout(1, "web", "roll", 1, 2, size, started=0.0, progress_at=NOW - 10, replaces=size)
    actions = plan(fleet, rollout, machines, UNLIMITED, NOW).actions
    kinds = [action.kind for action in actions]
    assert kinds.count("destroy") == kinds.count("launch") == size // 20, "it is not in the middle"
    return len(actions)


def in_the_middle(size: int) -> list[Machine]:
    """Return ``size`` machines and 10 % surge in no order: 55 % new ones, 5 % that boot, the rest old."""
    numbers = list(range(size * 11 // 10))
    random.Random(size).shuffle(numbers)
    return [_machine(number, size) for number in numbers]


def _machine(number: int, size: int) -> Machine:
    name, born = f"web-{number:016x}.prod.example.com", float(number % 977)
    if number < size // 2:
        return Machine(name, 1, "serving", born - 10_000, born, "yes", ready_since=born, healthy_since=born)
    if number < size // 2 + size * 11 // 20:
        return Machine(name, 2, "serving", born, born + 10, "yes", ready_since=born + 10, healthy_since=born + 10)
    return Machine(name, 2, "booting", NOW - 60, NOW - 60)


def _counted(machines: Sequence[Machine]) -> int:
    return sum(machine.phase == "serving" and machine.health == "yes" for machine in machines)


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)
