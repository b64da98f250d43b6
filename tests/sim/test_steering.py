"""Orders of operators to rollouts that run, are interrupted or paused: what each command does to which."""

from __future__ import annotations

from dataclasses import replace

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books.ledger import Ledger, Record
from saltext.immutable.fleet.interventions import Interventions
from saltext.immutable.fleet.operations import Failed
from saltext.immutable.spec.model import Amount, Budgets, Strategy, Window

from .simulated import Killed
from .test_stories import ONE, TWO, Steady, _kill_after

THREE = "3" * 64
STEPS = (Amount(1), Amount(100, percent=True))
QUICK = {"ready_within": 30.0, "progress_within": 90.0, "max_surge": Amount(1)}


@pytest.fixture
def fleet(estate):
    """Return what makes a fleet of three that runs image 1, with image 2 in its channel."""

    def make(strategy=None, **changes):
        made = estate(Steady(), strategy=Strategy(**{**QUICK, **(strategy or {})}), **changes)
        made.publish(ONE)
        made.operations().roll("web", now=True)
        made.publish(TWO)
        return made

    return make


def order(fleet, seconds, what, reason="because"):
    """Let another process give an order to the rollout that is under way, some seconds from now."""

    def give():
        rollout = fleet.ledger.unfinished()
        fleet.ledger.order(rollout, what, reason, "jane", fleet.world.now)

    fleet.world.later(seconds, give)


def paused(fleet, **how):
    """Begin a roll that an operator pauses after some seconds."""
    order(fleet, 3.0, "pause")
    with pytest.raises(Failed, match="paused: pause by jane: because"):
        fleet.operations().roll("web", **how)
    return fleet


def outcomes(fleet):
    return [(one.kind, one.outcome) for one in reversed(fleet.ledger.rollouts()[:-1])]


def test_a_pause_ends_calls_under_way_and_begins_nothing(fleet):
    made = paused(fleet())
    rollout = made.ledger.unfinished()
    assert (rollout.outcome, rollout.paused_by) == ("paused", "operator")
    assert "`salt-run fleet.resume web` carries on" in rollout.reason
    there = set(made.world.machines)
    made.world.wait(made.world.now + 600)
    assert set(made.world.machines) == there


def test_resume_goes_on_where_it_was(fleet):
    made = paused(fleet())
    made.operations().continue_rollout("web")
    assert outcomes(made) == [("roll", "done")]
    assert made.running() == [TWO] * 3
    made.assert_in_order()


@pytest.mark.parametrize("command", ["roll", "repair", "replace"])
def test_nothing_begins_where_an_operator_said_pause(fleet, command):
    made = paused(fleet())
    target = "web" if command != "replace" else next(iter(made.ledger.records()))
    with pytest.raises(CommandExecutionError, match="is paused: pause by jane.*fleet.resume.*fleet.abort"):
        getattr(made.operations(), command)(*([target] if command != "replace" else [target, "noise"]))
    assert not made.ledger.tainted()


def test_rollback_turns_a_paused_roll_back(fleet):
    made = paused(fleet())
    made.operations().rollback("web")
    assert outcomes(made) == [("roll", "rolled back")]
    assert made.running() == [ONE] * 3
    assert made.ledger.lineage() == [1]
    made.assert_in_order()


def test_rollback_turns_a_running_roll_back_whoever_drives_it(fleet):
    made = fleet()
    order(made, 3.0, "back")
    with pytest.raises(Failed, match="rolled back: back by jane: because"):
        made.operations().roll("web")
    assert made.running() == [ONE] * 3
    made.assert_in_order()


def test_there_is_no_rollback_of_a_rollback(fleet):
    made = fleet()
    made.operations().roll("web")
    order(made, 3.0, "pause")
    with pytest.raises(Failed, match="paused"):
        made.operations().rollback("web")
    with pytest.raises(CommandExecutionError, match="is a rollback, which cannot be rolled back"):
        made.operations().give_order("web", "back")


@pytest.mark.parametrize("how", ["running", "paused", "interrupted"])
def test_abort_leaves_what_serves_and_lets_newcomers_go_that_do_not(fleet, how):
    made = fleet()
    if how == "paused":
        paused(made)
    elif how == "interrupted":
        _kill_after(made, "launched")
        with pytest.raises(Killed):
            made.operations().roll("web")
    else:
        order(made, 3.0, "abort")
        with pytest.raises(Failed, match="aborted: abort by jane"):
            made.operations().roll("web")
    if how != "running":
        made.operations().give_order("web", "abort", "enough")
    assert outcomes(made) == [("roll", "aborted")]
    assert len(made.running()) in (3, 4)
    assert made.ledger.lineage() == [1]
    made.assert_in_order()
    made.operations().roll("web")
    assert made.running() == [TWO] * 3


@pytest.mark.parametrize("what", ["pause", "abort", "approve", "back"])
def test_an_order_needs_a_rollout(fleet, what):
    with pytest.raises(CommandExecutionError, match="fleet web has no running or paused rollout"):
        fleet().operations().give_order("web", what)


def test_an_order_for_a_rollout_that_is_over_changes_nothing(fleet):
    made = fleet()
    made.operations().roll("web")
    old = made.ledger.rollouts()[0]
    made.ledger.order(old, "abort", "too late", "jane", made.world.now)
    made.publish(THREE)
    made.operations().roll("web")
    assert made.running() == [THREE] * 3
    assert made.ledger.orders() == []


def test_steps_wait_for_approval_and_health_is_watched_meanwhile(fleet):
    made = fleet({"steps": STEPS, "approve": True, "soak": 20.0})
    made.world.later(15.0, lambda: waiting.append(made.ledger.unfinished().verdict))
    made.world.later(500.0, lambda: waiting.append(made.ledger.unfinished().verdict))
    order(made, 1000.0, "approve")
    waiting: list[str] = []
    made.operations().roll("web")
    assert "soaks for 20 s" in waiting[0]
    assert "step 1 of 2 (1)" in waiting[1] and "waits for `salt-run fleet.approve web`" in waiting[1]
    assert made.running() == [TWO] * 3
    assert made.world.now - made.ledger.rollouts()[0].started > 1000


def test_who_falls_ill_while_an_approval_is_waited_for_turns_the_roll_back(fleet):
    made = fleet({"steps": STEPS, "approve": True})
    made.world.later(20.0, lambda: made.world.sick.add("web-004"))
    with pytest.raises(Failed, match="rolled back: web-004: not healthy for 10 s: nginx is dead"):
        made.operations().roll("web")
    assert made.running() == [ONE] * 3


def test_an_approval_where_nobody_drives_carries_on(fleet):
    made = fleet({"steps": STEPS, "approve": True})
    _kill_after(made, "ready")
    with pytest.raises(Killed):
        made.operations().roll("web")
    made.operations().give_order("web", "approve")
    assert made.running() == [TWO] * 3


def test_scale_keeps_the_generation_and_holds_until_the_pillar_says_otherwise(fleet):
    made = fleet()
    made.operations().scale("web", 5)
    assert made.running() == [ONE] * 5
    made.operations().roll("web")
    assert made.running() == [TWO] * 5
    made.operations().scale("web", 2)
    assert made.running() == [TWO] * 2
    made.resize(4)
    made.operations().roll("web")
    assert made.running() == [TWO] * 4
    made.assert_in_order()


def test_scale_is_taken_up_by_the_rollout_that_runs(fleet):
    made = fleet()
    made.world.later(3.0, lambda: made.ledger.resize(5, 3, "jane", made.world.now))
    made.operations().roll("web")
    assert made.running() == [TWO] * 5


def test_scale_of_a_paused_fleet_takes_effect_when_it_is_resumed(fleet):
    made = paused(fleet())
    assert made.operations().scale("web", 4).outcome == "paused"
    made.operations().continue_rollout("web")
    assert made.running() == [TWO] * 4


@pytest.mark.parametrize(
    ("size", "why"),
    [(0, "nothing would serve.*fleet.destroy"), (-1, "must be 0 or more"), ("five", "must be a whole number")],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_touched(fleet, size, why):
    made = fleet()
    with pytest.raises(SaltInvocationError, match=f"size: .*{why}"):
        made.operations().scale("web", size)
    assert made.ledger.effective_size(3) == 3


def test_one_machine_is_replaced_by_a_newcomer_of_the_same_generation(fleet):
    made = fleet()
    made.operations().replace("web-002", "noise")
    assert made.running() == [ONE] * 3
    assert set(made.world.machines) == {"web-001", "web-003", "web-004"}
    assert outcomes(made) == [("replace", "done")]
    made.assert_in_order()


def test_a_protected_machine_is_waited_for_and_then_named(fleet):
    made = fleet()
    made.ledger.protect("web-002", "a core dump", "jane", made.world.now)
    with pytest.raises(Failed, match="(?s)1 protected \\(web-002: `salt-run fleet.unprotect` removes the protection"):
        made.operations().roll("web")
    assert "web-002" in made.world.machines


def test_a_protected_machine_is_skipped_where_the_strategy_says_so(fleet):
    made = fleet({"protected": "skip"})
    made.ledger.protect("web-002", "a core dump", "jane", made.world.now)
    made.operations().roll("web")
    assert made.running() == [ONE, TWO, TWO]
    made.ledger.unprotect("web-002")
    made.operations().roll("web")
    assert made.running() == [TWO] * 3


def test_nothing_protected_is_destroyed_with_its_fleet(fleet):
    made = fleet()
    made.ledger.protect("web-002", "a core dump", "jane", made.world.now)
    with pytest.raises(CommandExecutionError, match="fleet web has protected machines: web-002"):
        made.operations().destroy("web")
    assert len(made.running()) == 3


def test_care_protects_and_tells(fleet):
    made, said = fleet(), []
    interventions = Interventions(made.operations(), lambda message, tag, **data: said.append(tag))
    assert interventions.protect("web-001", "a dump", test=True)["result"] is None
    assert interventions.protect("web-001", "a dump")["changed"] is True
    assert interventions.protect("web-001", "again")["changed"] is False
    assert made.ledger.protected() == {"web-001": "a dump"}
    assert interventions.unprotect("web-001")["changed"] is True
    assert said == ["web/protected", "web/unprotected"]


SATURDAY = (Window("0 2 * * sat", 3600.0),)


def test_nothing_is_rolled_outside_the_windows_but_back(fleet):
    made = fleet(windows=SATURDAY)
    with pytest.raises(CommandExecutionError, match="fleet web is closed: .*next opening is .*now=True"):
        made.operations().roll("web")
    made.operations().roll("web", now=True)
    made.operations().rollback("web")
    assert made.running() == [ONE] * 3
    with pytest.raises(CommandExecutionError, match="closed"):
        made.operations().roll("web")
    made.publish(ONE)


def test_a_fleet_that_is_right_needs_no_window(fleet):
    made = fleet(windows=SATURDAY)
    made.operations().roll("web", now=True)
    assert made.operations().roll("web") is None


def test_a_window_that_closes_midway_pauses_and_the_next_one_carries_on(fleet):
    made = fleet(windows=SATURDAY)
    made.world.now = 16 * 86400 + 3 * 3600 - 3.0  # 1970-01-17 was a Saturday
    with pytest.raises(Failed, match="paused: closed: .*`salt-run fleet.resume web`"):
        made.operations().roll("web")
    assert made.ledger.unfinished().paused_by == "window"
    assert len(made.running()) >= 3
    made.world.now += 7 * 86400 - 600
    made.operations().roll("web")
    assert made.running() == [TWO] * 3
    assert outcomes(made) == [("roll", "done")]


def test_budgets_are_kept(fleet):
    made = fleet({"max_surge": Amount(3)}, budgets=Budgets(launches=Amount(2), disruptions=Amount(1)))
    most = [0, 0]

    def look():
        records = made.ledger.records().values()
        booting = sum(one.ready_since is None and not one.doomed for one in records)
        going = sum(one.ready_since is not None and one.doomed for one in records)
        most[:] = max(most[0], booting), max(most[1], going)
        made.world.later(0.1, look)

    made.world.later(0.1, look)
    made.operations().roll("web")
    assert most == [2, 1]
    assert made.running() == [TWO] * 3


def test_who_waits_for_the_budget_of_another_fleet_is_not_turned_back(fleet):
    """Another fleet's launch stays under way for ten minutes; ``progress_within`` is 90 s."""
    made = fleet(budgets=Budgets())
    other = Ledger(made.store, "db")
    with made.store.lease("fleet db") as lease:
        rollout = other.begin(lease, "roll", 1, made.world.now)
        other.commit(lease, rollout, [Record("db-1", "db", 1, "launched", made.world.now, ref="db-1")])

    def ready():
        with made.store.lease("fleet db") as lease:
            other.commit(lease, rollout, (), ["db-1"])

    made.world.later(600.0, ready)
    operations = made.operations()
    operations._settings = replace(operations._settings, budgets=Budgets(launches=Amount(1)))
    operations.roll("web")
    assert outcomes(made) == [("roll", "done")]
    assert made.ledger.rollouts()[0].ended - made.ledger.rollouts()[0].started > 590
