"""What the plan does about machines that are right and too many, where visitors have to leave them first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy, TrafficSpec

NOW = 1000.0
STRATEGY = Strategy(max_surge=Amount(1))
FLEET = Fleet("web", "web", 2, "web-{token}", ProviderSpec("p"), strategy=STRATEGY, traffic=TrafficSpec("haproxy"))
SCALE = Rollout(1, "web", "scale", source=1, target=1, old_size=3, started=900.0, progress_at=990.0)
SERVING = [
    Machine(f"web-{n}", 1, "serving", 100.0 + n, 950.0, "yes", ready_since=110.0, healthy_since=110.0) for n in range(3)
]


@pytest.mark.parametrize(
    ("sessions", "decision"),
    [
        pytest.param(2, [], id="it is left alone while it has visitors"),
        pytest.param(0, [("destroy", "web-1")], id="it goes when they have left"),
    ],
)
def test_a_machine_too_many_that_is_being_drained_is_not_put_back(sessions, decision):
    leaving = replace(SERVING[1], phase="draining", attached=False, drain_since=995.0, sessions=sessions)
    step = plan(FLEET, SCALE, [SERVING[0], leaving, SERVING[2]], UNLIMITED, NOW)
    assert [(action.kind, action.minion_id) for action in step.actions] == decision


def test_the_forecast_of_a_smaller_fleet_ends():
    actions, _ = forecast(FLEET, SCALE, SERVING, NOW)
    assert [(action.kind, action.minion_id) for action in actions] == [("drain", "web-0"), ("destroy", "web-0")]


@pytest.mark.parametrize(
    ("kind", "gone", "outcome"),
    [
        pytest.param("scale", ["web-0"], None, id="a scale was asked for in person"),
        pytest.param("roll", [], "paused", id="a roll waits with all that is too many"),
        pytest.param("reconcile", [], "done", id="upkeep leaves it to its next time"),
    ],
)
def test_a_machine_too_many_goes_by_choice_only_while_a_window_is_open(kind, gone, outcome):
    closed = replace(UNLIMITED, closed="closed: tonight", until=5000.0)
    step = plan(FLEET, replace(SCALE, kind=kind), SERVING, closed, NOW)
    assert [action.minion_id for action in step.actions] == gone
    assert step.rollout.outcome == outcome
