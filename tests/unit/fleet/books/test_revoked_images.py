"""What upkeep does with a fleet whose image was revoked: nothing, unless it is asked to and knows where to go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.immutable.fleet.decide.reconcile import FleetStatus, Revoked, decide, stuck
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Fleet, ProviderSpec

NOW = 1_000_000.0
KEEP = Fleet("shop", "web", 5, "shop-{token}.example.com", ProviderSpec("p"))
REPLACE = replace(KEEP, revoked="replace")
BAD = "web@111111111111 was revoked: openssl"
REVOKED = Revoked(runs=BAD, instead="web@222222222222")


def unfinished(kind="roll", outcome=None, by=None):
    more = {"started": NOW, "progress_at": NOW, "outcome": outcome, "paused_by": by, "verdict": "1 booting"}
    return Rollout(1, "shop", kind, 1, 2, 5, **more)


def status(rollout=None, revoked=REVOKED, held_by=None, **more):
    return FleetStatus(True, held_by, rollout, settled=True, machines=True, revoked=revoked, **more)


@pytest.mark.parametrize(
    ("fleet", "state", "action", "says"),
    [
        pytest.param(REPLACE, status(), "roll", f"{BAD}; web:stable names web@222222222222", id="it was asked to"),
        pytest.param(KEEP, status(), "observe", "", id="it was not: machines stay, and are kept well"),
        pytest.param(REPLACE, status(revoked=Revoked()), "observe", "", id="nothing is revoked"),
        pytest.param(REPLACE, status(revoked=Revoked(runs=BAD)), "observe", "", id="nowhere to go"),
        pytest.param(REPLACE, status(closed="no window"), "observe", "", id="outside its windows"),
        pytest.param(REPLACE, status(revoked=replace(REVOKED, failed="ill")), "observe", "", id="it failed before"),
        pytest.param(REPLACE, status(unfinished("reconcile")), "roll", BAD, id="in place of upkeep that was killed"),
        pytest.param(REPLACE, status(unfinished("roll")), "carry on", "1 booting", id="it is on its way already"),
        pytest.param(REPLACE, status(unfinished("roll", "paused", "operator")), "leave", "", id="paused by hand"),
        pytest.param(REPLACE, status(held_by="pid 7"), "busy", "", id="somebody works on it"),
    ],
)
def test_a_fleet_that_runs_a_revoked_image(fleet, state, action, says):
    found = decide(fleet, state, NOW)
    assert found.action == action
    assert says in found.reason


@pytest.mark.parametrize(
    "rollout", [unfinished("roll"), unfinished("rollback"), unfinished("roll", "paused", "window")]
)
def test_a_rollout_to_a_revoked_image_is_not_carried_on_and_somebody_is_told_the_way_out(rollout):
    found = decide(KEEP, status(rollout, Revoked(target=BAD)), NOW)
    assert (found.action, found.failed) == ("alarm", True)
    for words in (BAD, "`salt-run fleet.roll shop` goes to what web:stable names", "`salt-run fleet.rollback shop`"):
        assert words in found.reason


@pytest.mark.parametrize(
    ("fleet", "revoked", "says"),
    [
        pytest.param(KEEP, Revoked(runs=BAD), None, id="it stays by wish"),
        pytest.param(REPLACE, REVOKED, None, id="it goes"),
        pytest.param(REPLACE, Revoked(), None, id="nothing is revoked"),
        pytest.param(REPLACE, Revoked(runs=BAD), "names no other image to go to; promote another", id="nowhere"),
        pytest.param(
            REPLACE,
            replace(REVOKED, failed="nginx is dead"),
            "the roll to web@222222222222 failed: nginx is dead; promote another: salt-run image.promote web@... "
            "channel=stable",
            id="it failed",
        ),
    ],
)
def test_why_it_stays_where_it_should_not(fleet, revoked, says):
    found = stuck(fleet, revoked)
    assert found == says if says is None else says in found
