"""Which machines that were kept a rollout brings back when it turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy

NOW = 1000.0
STRATEGY = Strategy(max_surge=Amount(2), keep_old=600.0)
FLEET = Fleet("web", "web", 2, "web-{token}", ProviderSpec("p"), strategy=STRATEGY)
BACK = Rollout(2, "web", "roll", source=1, target=2, old_size=2, started=900.0, progress_at=990.0, direction="back")
OLD = Machine("web-1", 1, "serving", 100.0, 110.0, "yes", ready_since=110.0, healthy_since=110.0)
KEPT = replace(
    OLD, minion_id="web-2", phase="standby", attached=False, drain_since=950.0, sessions=0, kept_until=1500.0
)
NEW = [replace(OLD, minion_id=f"web-{number}", generation=2, born=910.0) for number in (3, 4)]


def decided(*machines: Machine) -> dict[str | None, str]:
    step = plan(FLEET, BACK, [*machines, *NEW], UNLIMITED, NOW)
    return {action.minion_id: action.kind for action in step.actions}


def test_one_that_is_well_is_brought_back():
    assert decided(OLD, KEPT)["web-2"] == "attach"


@pytest.mark.parametrize("health", ["yes", "unknown"])
def test_a_tainted_one_goes_and_another_takes_its_place(health):
    did = decided(OLD, replace(KEPT, taint="vim /etc/motd", health=health))
    assert (did["web-2"], did[None]) == ("destroy", "launch")


def test_a_tainted_one_that_serves_stays():
    assert "web-1" not in decided(replace(OLD, taint="vim /etc/motd"), KEPT)
