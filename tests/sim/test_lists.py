"""What the provider's list is believed about: machines that are half made, stopped or missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.immutable.providers import Identity

from .simulated import Killed
from .test_stories import ONE, TWO, Steady, _kill_after


@pytest.fixture
def fleet(estate):
    made = estate(Steady())
    made.publish(ONE)
    made.operations().roll("web")
    made.publish(TWO)
    return made


def stopped(world, name):
    """Let a machine be there, and not run."""
    machine = world.machines[name]
    world.machines[name] = replace(machine, instance=replace(machine.instance, running=False), up=False)


def test_a_machine_that_a_killed_launch_left_half_made_is_launched_again(fleet, monkeypatch):
    world, launch = fleet.world, fleet.world.launch

    def anew(published, identity):
        if identity.minion_id in world.machines and not world.machines[identity.minion_id].instance.running:
            del world.machines[identity.minion_id]  # as the contract of providers has it: what does not run is replaced
        return launch(published, identity)

    monkeypatch.setattr(world, "launch", anew)
    _kill_after(fleet, "launch")
    with pytest.raises(Killed):
        fleet.operations().roll("web")
    [left] = [name for name, record in fleet.ledger.records().items() if record.intent == "launch"]
    if left not in world.machines:
        launch(TWO, Identity(left, "web", 2, fleet.ledger.installation))
    stopped(world, left)
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    assert left in world.machines
    assert [one.outcome for one in fleet.ledger.rollouts()] == ["done", "done"]


def test_one_wrong_list_takes_nobody(fleet, monkeypatch):
    world, told = fleet.world, fleet.world.list
    wrong = []

    def listed(name=None):
        found = told(name)
        if len(wrong) < 1 and world.now > 1_000_000 + 10:
            wrong.append(world.now)
            return [replace(one, running=False) for one in found]
        return found

    monkeypatch.setattr(world, "list", listed)
    world.now += 10
    fleet.operations().roll("web")
    assert wrong
    assert fleet.running() == [TWO] * 3
    assert not [entry for entry in fleet.story if "stopped" in entry.reason]


def test_a_machine_that_does_not_run_is_not_counted_while_the_next_list_is_waited_for(fleet):
    """web-002 dies as web-004 becomes ready: nobody may go for the newcomer before the dead one has been replaced."""
    fleet.world.later(2.0, lambda: stopped(fleet.world, "web-002"))
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    fleet.assert_in_order()


def test_a_machine_that_stays_stopped_is_replaced(fleet):
    fleet.operations().roll("web")
    stopped(fleet.world, "web-005")
    fleet.operations().repair("web")
    assert fleet.running() == [TWO] * 3
    assert "web-005" not in fleet.world.machines
