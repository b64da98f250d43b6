"""What a careless operator, a hostile minion and a clock that is set wrong try to do to rollouts."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books.saved_plans import Plans
from saltext.immutable.fleet.interventions import Interventions
from saltext.immutable.fleet.operations import Failed
from saltext.immutable.fleet.show import report
from saltext.immutable.spec.model import Amount, TrafficSpec, Window

from . import processes
from .simulated import Killed
from .test_steering import ONE, THREE, TWO, fleet, order, outcomes, paused
from .test_stories import _kill_after

__all__ = ["fleet"]

HOUR = 3600.0
STEPS = (Amount(1), Amount(2), Amount(100, percent=True))


def rolled(made, *images):
    for image in images:
        made.publish(image)
        made.operations().roll("web", now=True)
    return made


# Orders


def test_a_pause_that_came_too_late_for_its_driver_does_not_pause_what_is_resumed(fleet):
    made = paused(fleet())
    made.ledger.order(made.ledger.unfinished(), "pause", "me too", "joe", made.world.now)
    made.operations().resume("web")
    assert outcomes(made) == [("roll", "done")]


def test_a_second_approval_does_not_approve_the_next_step(fleet):
    made = fleet({"steps": STEPS, "approve": True, "soak": 20.0})
    seen = []

    def approve_again():
        with pytest.raises(CommandExecutionError, match="has not reached step 2 yet"):
            made.operations().give_order("web", "approve")
        seen.append(made.ledger.unfinished().step)

    order(made, 100.0, "approve")
    order(made, 100.1, "approve")
    made.world.later(103.0, approve_again)
    made.world.later(600.0, lambda: seen.append(made.ledger.unfinished().step))
    order(made, 700.0, "approve")
    made.operations().roll("web")
    assert seen == [1, 1], "the second step waits for an approval of its own"


def test_a_step_that_is_not_reached_cannot_be_approved(fleet):
    made = fleet({"steps": STEPS, "approve": True, "soak": 20.0})
    _kill_after(made, "launch")
    with pytest.raises(Killed):
        made.operations().roll("web")
    with pytest.raises(CommandExecutionError, match="has not reached step 1"):
        made.operations().give_order("web", "approve")


def test_a_rollback_that_came_too_late_says_what_to_do(fleet):
    made = fleet()
    made.publish(TWO)
    made.operations().roll("web")
    over = made.ledger.rollouts()[0]
    with pytest.raises(Failed, match="ended before.*`salt-run fleet.status web`"):
        made.operations().wait_for_end("web", over, ("rolled back",))


@pytest.mark.parametrize("reason", [4711, {"a": 1}, None, "bell\x07 and nul\x00"])
def test_any_reason_can_be_written_down(fleet, reason):
    made = paused(fleet())
    made.operations().give_order("web", "abort", reason)
    said = made.ledger.rollouts()[0].reason
    assert "\x07" not in said and "\x00" not in said


def test_an_abort_that_was_interrupted_names_its_way_out(fleet):
    made = fleet()
    made.world.dead_on_arrival = 1
    order(made, 1.0, "abort")
    _kill_after(made, "stop")
    with pytest.raises(Killed):
        made.operations().roll("web")
    with pytest.raises(CommandExecutionError, match="being aborted: .*`salt-run fleet.abort web`"):
        made.operations().resume("web")
    made.operations().give_order("web", "abort")
    assert outcomes(made) == [("roll", "aborted")]


def test_a_pause_is_heard_while_the_provider_is_silent(fleet):
    made = fleet()
    _kill_after(made, "launched")
    with pytest.raises(Killed):
        made.operations().roll("web")
    made.world.faults.list_fails = 1.0
    made.operations().give_order("web", "pause", "the provider is down")
    assert made.ledger.unfinished().paused_by == "operator"


def test_who_waits_for_a_rollout_does_not_resume_what_an_operator_pauses(fleet):
    made = paused(fleet())
    with pytest.raises(Failed, match="paused: pause by jane: because; `salt-run fleet.resume web`"):
        made.operations().wait_for_end("web", made.ledger.unfinished())
    assert made.ledger.unfinished().paused_by == "operator"


def test_an_order_is_heard_while_a_list_hangs(fleet, monkeypatch):
    made = fleet()
    monkeypatch.setitem(processes.SECONDS, "list", 3000.0)
    order(made, 5.0, "pause")
    began = made.world.now
    with pytest.raises(Failed, match="paused: pause by jane"):
        made.operations().roll("web")
    assert made.world.now - began < 30


@pytest.mark.parametrize(("what", "outcome"), [("abort", "aborted"), ("back", "rolled back")])
def test_an_abort_that_is_read_together_with_a_pause_is_not_lost(fleet, what, outcome):
    made = fleet()
    order(made, 3.0, "pause", "wait")
    order(made, 3.01, what, "no, stop")
    with pytest.raises(Failed, match=f"{outcome}: {what} by jane: no, stop"):
        made.operations().roll("web")
    assert made.ledger.unfinished() is None


def test_a_way_back_that_fails_is_not_tried_again_by_who_waits_for_it(fleet):
    made = paused(fleet())
    rollout = made.ledger.unfinished()
    with pytest.raises(Failed, match="roll paused"):
        made.operations().wait_for_end("web", rollout, ("rolled back",))
    assert made.ledger.unfinished() == rollout


# Sizes


def test_the_size_of_a_paused_fleet_is_not_said_to_be_reached(fleet):
    made = paused(fleet())
    rollout = made.operations().scale("web", 4)
    assert rollout.outcome == "paused"
    assert made.ledger.effective_size(3) == 4


def test_a_size_that_was_given_up_does_not_come_back(fleet):
    made = fleet()
    made.operations().scale("web", 5)
    made.resize(4)
    made.operations().roll("web")
    assert made.running() == [TWO] * 4
    made.resize(3)
    assert made.ledger.effective_size(3) == 3


@pytest.mark.parametrize("size", [0, -1, "five", True, None])
def test_a_trial_refuses_the_sizes_that_the_command_refuses(fleet, size):
    with pytest.raises(SaltInvocationError, match="size: "):
        fleet().operations().forecast("web", "scale", size=size)


def test_a_fleet_that_goes_is_not_scaled(fleet):
    made = fleet()
    _kill_after(made, "destroy")
    with pytest.raises(Killed):
        made.operations().destroy("web")
    with pytest.raises(CommandExecutionError, match="destroys the fleet"):
        made.operations().scale("web", 5)
    assert made.ledger.effective_size(3) == 3


def test_a_protected_machine_is_not_replaced_in_vain(fleet):
    made = fleet()
    made.ledger.protect("web-002", "a core dump", "jane", made.world.now)
    with pytest.raises(CommandExecutionError, match="web-002 .*protected: a core dump; `salt-run fleet.unprotect"):
        made.operations().replace("web-002", "noise")
    assert not made.ledger.tainted()


# Ways back


def test_an_aborted_roll_is_rolled_back_to_where_it_came_from(fleet):
    made = rolled(fleet(), TWO)
    made.publish(THREE)
    order(made, 5.0, "abort")
    with pytest.raises(Failed, match="aborted"):
        made.operations().roll("web")
    assert set(made.running()) == {TWO, THREE}
    made.operations().rollback("web")
    assert made.running() == [TWO] * 3
    assert made.ledger.lineage() == [1, 2]
    made.operations().rollback("web")
    assert made.running() == [ONE] * 3


def test_the_image_of_machines_that_serve_is_not_deleted(fleet):
    made = rolled(fleet(), TWO)
    made.publish(THREE)
    order(made, 5.0, "abort")
    with pytest.raises(Failed, match="aborted"):
        made.operations().roll("web")
    made.store.set_channel("web", "stable", TWO)
    with pytest.raises(CommandExecutionError, match="needed by generation 3 of fleet web"):
        made.store.delete_image(THREE)


def test_a_rollback_to_a_deleted_image_says_so(fleet):
    made = rolled(fleet(), TWO, THREE)
    made.store.delete_image(ONE)
    with pytest.raises(SaltInvocationError, match="generation 1 .*image 111111111111.* deleted.*fleet.history"):
        made.operations().rollback("web", 1)


@pytest.mark.parametrize("generation", ["1", True, -1, 1.5])
def test_a_generation_is_a_whole_number(fleet, generation):
    made = rolled(fleet(), TWO)
    for command in ("rollback", "forecast"):
        with pytest.raises(SaltInvocationError, match="generation: must be "):
            if command == "rollback":
                made.operations().rollback("web", generation)
            else:
                made.operations().forecast("web", "rollback", generation=generation)


def test_who_goes_already_is_not_protected_in_vain(fleet):
    made = fleet()
    _kill_after(made, "destroy")
    with pytest.raises(Killed):
        made.operations().roll("web")
    going = next(name for name, record in made.ledger.records().items() if record.doomed)
    with pytest.raises(
        CommandExecutionError, match="is being destroyed, so it cannot be protected any more: generation 1 goes"
    ):
        Interventions(made.operations(), lambda message, tag, **data: None).protect(going, "a core dump")
    assert made.ledger.protected() == {}


# Blue-green


@pytest.mark.parametrize("traffic", [None, TrafficSpec("haproxy")])
@pytest.mark.parametrize("size", [5, 2])
def test_a_fleet_that_also_becomes_smaller_or_larger_moves_its_traffic_at_once(fleet, traffic, size):
    made = fleet({"blue_green": True, "soak": 10.0}, traffic=traffic)
    made.resize(size)
    made.operations().roll("web")
    assert made.running() == [TWO] * size
    made.assert_in_order()


def test_a_fleet_that_grows_while_all_are_replaced_by_their_like_keeps_to_its_steps(fleet):
    made = fleet({"steps": STEPS, "soak": 10.0, "skip_matching": False})
    made.resize(5)
    made.operations().roll("web", ONE)
    assert made.running() == [ONE] * 5
    assert not {"web-001", "web-002", "web-003"} & set(made.world.machines)


# Plans


def test_what_is_in_the_way_is_not_taken_for_nothing_to_do(fleet):
    made = fleet({"max_surge": Amount(0), "max_unavailable": Amount(1)})
    for name in made.ledger.records():
        made.ledger.protect(name, "a core dump", "jane", made.world.now)
    foreseen = report.describe_forecast(made.operations().forecast("web", "roll"))
    assert foreseen["verdict"] == "roll"
    assert "it would not end: " in foreseen["reason"] and "`salt-run fleet.unprotect`" in foreseen["reason"]
    with pytest.raises(Failed, match="3 protected"):
        made.operations().roll("web")


def test_a_plan_is_not_used_up_where_no_window_is_open(fleet):
    made = fleet(windows=(Window("0 2 * * sat", 3600.0),))
    made.publish(TWO)
    foreseen = made.operations().forecast("web", "roll")
    plan = Plans(made.store, "web").save(made.operations().ground(foreseen), foreseen.actions, made.world.now)
    with pytest.raises(CommandExecutionError, match="now=True"):
        made.operations().roll("web", plan=plan)
    made.operations().roll("web", plan=plan, now=True)
    assert made.running() == [TWO] * 3


# Reconcile


def test_upkeep_that_carries_a_roll_on_takes_its_generation_for_the_last_good_one(fleet):
    made = fleet()
    _kill_after(made, "ready")
    with pytest.raises(Killed):
        made.operations().roll("web")
    made.operations().repair("web")
    assert made.running() == [TWO] * 3
    assert made.ledger.lineage() == [1, 2]


# Clocks


@pytest.mark.parametrize("at", [0.5, 1.5, 3.0, 5.0])
@pytest.mark.parametrize("leap", [-HOUR, HOUR])
def test_a_clock_that_is_set_right_by_an_hour_neither_stalls_nor_fails_a_roll(fleet, at, leap):
    made = fleet()
    made.world.later(at, lambda: setattr(made.world, "ahead", leap))
    began = made.world.now
    made.operations().roll("web")
    assert made.running() == [TWO] * 3
    assert made.world.now - began < 120


@pytest.mark.parametrize("strategy", [{}, {"skip_matching": False}, {"min_ready": 5.0}, {"soak": 10.0}])
def test_a_clock_that_went_back_an_hour_between_a_kill_and_a_resume(fleet, strategy):
    made = fleet(strategy)
    _kill_after(made, "ready")
    with pytest.raises(Killed):
        made.operations().roll("web")
    made.world.ahead = -HOUR
    made.bury()
    began = made.world.now
    made.operations().resume("web")
    assert made.running() == [TWO] * 3
    assert made.world.now - began < 300
