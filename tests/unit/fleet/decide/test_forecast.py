"""What a plan says of a fleet that stands behind HAProxy: who is moved in the traffic is not who goes."""

from __future__ import annotations

from saltext.immutable.fleet.decide.state import Action
from saltext.immutable.fleet.fleets import Forecast
from saltext.immutable.fleet.show.report import describe_forecast


def test_only_who_is_destroyed_is_a_victim():
    kinds = [("launch", None), ("attach", "new 1"), ("drain", "web-1"), ("destroy", "web-1"), ("drain", "web-2")]
    actions = tuple(Action(kind, 2, "because", minion_id) for kind, minion_id in kinds)
    result = describe_forecast(Forecast("web", "roll", 1, "web@0", actions, continues=False))
    assert result["reason"] == "1 to launch, 1 to destroy"
    assert result["changes"] == {"launch": 1, "destroy": ["web-1"]}
    assert [action["kind"] for action in result["actions"]] == [kind for kind, _ in kinds]
