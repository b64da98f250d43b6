"""Images that are revoked while fleets run them, roll to them, or could go back to them."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake.commands.revoke import Revocations
from saltext.immutable.fleet.reconcile import FleetReconciler
from saltext.immutable.fleet.show import report, tables

from .simulated import Killed, Simulated
from .test_stories import _kill_after

ONE, TWO, THREE = (number * 64 for number in "123")


@pytest.fixture
def fleet(estate):
    """Return what makes a fleet that runs image 1, of three machines."""

    def make(**changes):
        made = estate(Simulated(1), **{"size": 3, **changes})
        made.publish(ONE)
        made.operations().roll("web")
        return made

    return make


def revoke(made, digest, reason="openssl"):
    return Revocations(made.store, lambda *_, **__: None, "jane").revoke(digest, reason)


def look(made, test=False):
    return FleetReconciler(made.operations(), lambda *_, **__: None, "web", lambda: False).reconcile(test)


def test_a_revoked_image_is_never_rolled(fleet):
    made = fleet()
    made.publish(TWO)
    told = revoke(made, TWO)
    assert (told["channels"], told["fleets"]) == (["web:stable"], {})
    for command in (made.operations().roll, lambda name: made.operations().forecast(name, "roll")):
        with pytest.raises(CommandExecutionError, match="web@222222222222 was revoked .* openssl; promote another"):
            command("web")
    with pytest.raises(CommandExecutionError, match="openssl; take another"):
        made.operations().roll("web", image=TWO)
    assert made.running() == [ONE] * 3


def test_no_generation_of_a_revoked_image_is_a_way_back(fleet):
    made = fleet()
    made.publish(TWO)
    made.operations().roll("web")
    revoke(made, ONE)
    for foretold in (False, True):
        with pytest.raises(CommandExecutionError, match="fleet web cannot go back to generation 1: .*openssl; name"):
            made.operations().forecast("web", "rollback") if foretold else made.operations().rollback("web")
    assert made.running() == [TWO] * 3


def test_who_runs_a_revoked_image_is_shown_and_still_kept_well(fleet):
    made = fleet()
    assert revoke(made, ONE)["fleets"] == {"web": {"web@111111111111": 3}}
    told = report.status(made.operations(), "web", made.world.now)
    assert told["revoked"] == [str(made.store.revoked()[ONE])]
    assert "revoked: web@111111111111 was revoked on" in tables.status(told, 200)
    made.world._die(sorted(made.ledger.records())[0])
    assert look(made)["did"] == "mended"
    assert made.running() == [ONE] * 3


def test_an_interrupted_roll_to_a_revoked_image_is_not_carried_on_but_rolled_past(fleet):
    made = fleet()
    made.publish(TWO)
    _kill_after(made, "ready")
    with pytest.raises(Killed):
        made.operations().roll("web")
    revoke(made, TWO)
    with pytest.raises(CommandExecutionError, match="roll is not carried on, since web@222222222222 was revoked"):
        made.operations().continue_rollout("web")
    told = look(made)
    assert (told["did"], told["result"]) == ("alarm", False)
    made.publish(THREE)
    made.operations().roll("web")
    assert made.running() == [THREE] * 3


def test_a_roll_to_a_revoked_image_is_turned_back(fleet):
    made = fleet()
    made.publish(TWO)
    _kill_after(made, "ready")
    with pytest.raises(Killed):
        made.operations().roll("web")
    revoke(made, TWO)
    made.operations().rollback("web")
    assert made.running() == [ONE] * 3


def test_upkeep_replaces_a_revoked_image_where_it_is_asked_to_once_another_is_promoted(fleet):
    made = fleet(revoked="replace")
    revoke(made, ONE)
    told = look(made)
    assert told["did"] == "nothing"
    assert "web:stable names no other image to go to; promote another" in told["waits"][0]
    made.publish(TWO)
    assert look(made, test=True)["did"] == "would roll"
    told = look(made)
    assert (told["did"], told["result"]) == ("rolled", True)
    assert made.running() == [TWO] * 3
    assert look(made)["did"] == "nothing"


def test_upkeep_rolls_away_once_and_not_again_where_that_failed(fleet):
    made = fleet(revoked="replace")
    revoke(made, ONE)
    made.publish(TWO)
    made.world.faults.ill[TWO] = "unhealthy"
    assert look(made)["did"] == "failed"
    assert made.running() == [ONE] * 3
    rollouts = len(made.ledger.rollouts())
    told = look(made)
    assert "the roll to web@222222222222 failed" in told["waits"][0]
    assert len(made.ledger.rollouts()) == rollouts


def test_a_fleet_that_is_not_asked_stays_on_its_revoked_image(fleet):
    made = fleet()
    revoke(made, ONE)
    made.publish(TWO)
    assert look(made)["did"] == "nothing"
    assert made.running() == [ONE] * 3


def test_an_image_that_is_deleted_while_a_roll_chooses_it_is_rolled_by_nobody(fleet):
    made = fleet()
    made.publish(TWO)
    operations = made.operations()
    chosen = operations._image

    def chosen_and_deleted(*args):
        digest = chosen(*args)
        made.store.delete_image(digest, with_channels=True)
        return digest

    operations._image = chosen_and_deleted
    operations._forecast = lambda *args, **kwargs: made.operations().forecast("web", "destroy")  # there is work to do
    with pytest.raises(CommandExecutionError, match="image 222222222222 of generation 2 of fleet web was deleted"):
        operations.roll("web")
    assert made.running() == [ONE] * 3
    assert made.ledger.unfinished() is None
