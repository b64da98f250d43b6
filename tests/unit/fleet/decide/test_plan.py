"""What the plan decides, machine by machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy

NOW = 1000.0
FLEET = Fleet("web", "web", 3, "web-{token}", ProviderSpec("p"), strategy=Strategy(max_surge=Amount(1)))
ROLLOUT = Rollout(1, "web", "roll", source=1, target=2, old_size=3, started=900.0, progress_at=990.0)
GENERATIONS = {"old": 1, "new": 2, "older": 0}


def machines(picture: str) -> list[Machine]:
    """Read ``old:serving new:booting new:unwell old:unknown new:late new:broken old:stopped new:tainted ...``."""
    found = []
    for number, word in enumerate(picture.split()):
        age, state = word.split(":")
        generation = GENERATIONS[age]
        born = 950.0 if age == "new" else 100.0 + number
        one = Machine(f"{age}-{number}", generation, "serving", born, since=950.0, health="yes")
        changes = {
            "serving": {},
            "booting": {"phase": "booting", "health": "unknown"},
            "late": {"phase": "booting", "health": "no", "since": NOW - 601, "note": "no nginx"},
            "broken": {"phase": "booting", "health": "no", "fault": "it runs another image"},
            "unwell": {"health": "no", "since": NOW - 5},
            "ill": {"health": "no", "since": NOW - 601},
            "unknown": {"health": "unknown"},
            "outdated": {"health": "unknown", "outdated": True},
            "stopped": {"fault": "it has stopped"},
            "doomed": {"phase": "doomed"},
            "tainted": {"taint": "by hand"},
            "sick": {"taint": "by hand", "health": "no", "since": NOW - 601},
            "lost": {"taint": "by hand", "health": "unknown"},
            "touched": {"taint": "by hand", "phase": "booting", "health": "unknown"},
        }
        found.append(replace(one, **changes[state]))
    return found


def decided(step) -> str:
    """Write a plan's actions as ``launch 2, destroy old-0``."""
    launches = [str(action.generation) for action in step.actions if action.kind == "launch"]
    victims = [action.minion_id for action in step.actions if action.kind == "destroy"]
    words = ([f"destroy {' '.join(victims)}"] if victims else []) + (
        [f"launch {' '.join(launches)}"] if launches else []
    )
    return ", ".join(words) or step.rollout.outcome or "wait"


@pytest.mark.parametrize(
    ("picture", "decision"),
    [
        pytest.param("", "launch 2 2 2", id="an empty fleet is filled at once, without surge"),
        pytest.param("old:serving old:serving old:serving", "launch 2", id="surge 1 lets one newcomer in"),
        pytest.param("old:serving old:serving old:serving new:booting", "wait", id="no victim while it boots"),
        pytest.param(
            "old:serving old:serving old:serving new:serving",
            "destroy old-0, launch 2",
            id="the oldest goes for a healthy newcomer, and its place is taken at once",
        ),
        pytest.param("old:serving old:serving old:serving new:unwell", "wait", id="an unwell newcomer replaces nobody"),
        pytest.param("old:serving old:serving old:serving new:unknown", "wait", id="unknown health is not healthy"),
        pytest.param(
            "old:serving old:unwell old:serving new:serving",
            "destroy old-1, launch 2",
            id="of the old ones the unwell goes first",
        ),
        pytest.param(
            "old:serving old:unknown old:serving new:serving",
            "destroy old-1, launch 2",
            id="then the one of unknown health",
        ),
        pytest.param(
            "old:unknown old:unknown old:serving new:serving", "wait", id="unknown health is protected by the floor"
        ),
        pytest.param("old:outdated old:outdated old:outdated", "launch 2", id="outdated ones stay at first"),
        pytest.param(
            "old:outdated old:outdated old:outdated new:serving",
            "destroy old-0, launch 2",
            id="and go one for one, though their health is never known",
        ),
        pytest.param("old:outdated old:outdated new:booting", "launch 2", id="but none below the floor"),
        pytest.param("old:unwell old:unwell old:unwell", "launch 2", id="a wrong check must not empty the fleet"),
        pytest.param(
            "old:stopped old:serving old:serving", "destroy old-0, launch 2 2", id="what has stopped goes at once"
        ),
        pytest.param(
            "older:serving old:serving old:serving old:serving new:serving",
            "destroy older-0 old-1, launch 2",
            id="machines of several generations go",
        ),
        pytest.param("old:booting old:serving old:serving", "destroy old-0, launch 2 2", id="not ready, no loss"),
        pytest.param("old:doomed old:serving old:serving new:serving", "launch 2", id="doomed ones take no place"),
        pytest.param("old:doomed old:doomed old:doomed old:doomed new:serving", "wait", id="at most size are doomed"),
        pytest.param("new:serving new:serving new:serving", "done", id="all serve"),
        pytest.param("new:serving new:serving new:unwell", "wait", id="not done while one is unwell"),
        pytest.param("new:serving new:serving new:serving old:doomed", "wait", id="not done while one is going"),
        pytest.param(
            "new:serving new:serving new:serving new:booting", "destroy new-3", id="one too many: the unready goes"
        ),
        pytest.param(
            "new:serving new:serving new:serving new:serving", "destroy new-0", id="one too many: the oldest goes"
        ),
    ],
)
def test_forward(picture, decision):
    assert decided(plan(FLEET, ROLLOUT, machines(picture), UNLIMITED, NOW)) == decision


@pytest.mark.parametrize(
    ("picture", "decision"),
    [
        pytest.param("new:tainted new:serving new:serving", "launch 2", id="one comes before the tainted one goes"),
        pytest.param("new:tainted new:serving new:serving new:booting", "wait", id="it serves while the other boots"),
        pytest.param(
            "new:serving new:tainted new:serving new:serving", "destroy new-1", id="it goes for a healthy newcomer"
        ),
        pytest.param("new:tainted new:tainted new:tainted", "launch 2", id="all of them, one at a time"),
        pytest.param(
            "new:tainted new:tainted new:serving new:serving", "destroy new-0, launch 2", id="and then the next"
        ),
        pytest.param("new:sick new:serving new:serving", "launch 2", id="a sick one is no failure of the image"),
        pytest.param("new:lost new:serving new:serving new:serving", "destroy new-0", id="one of unknown health goes"),
        pytest.param("new:touched new:serving new:serving", "destroy new-0, launch 2", id="unready: at once"),
        pytest.param(
            "old:serving old:tainted old:serving new:serving", "destroy old-1, launch 2", id="the tainted goes first"
        ),
        pytest.param(
            "old:tainted old:unwell old:serving new:serving", "destroy old-1, launch 2", id="but after the unwell"
        ),
        pytest.param("new:tainted new:serving new:serving new:serving old:doomed", "destroy new-0", id="none too many"),
    ],
)
def test_a_tainted_machine_serves_until_it_is_replaced(picture, decision):
    assert decided(plan(FLEET, ROLLOUT, machines(picture), UNLIMITED, NOW)) == decision


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        pytest.param("new:late", "new-3: not ready within 600 s: no nginx", id="not ready in time"),
        pytest.param("new:broken", "new-3: it runs another image", id="what can never serve"),
        pytest.param("new:ill", "new-3: not healthy for 10 s", id="a newcomer that stays unwell"),
        pytest.param("new:stopped", "new-3: it has stopped", id="a newcomer that dies after it was ready"),
    ],
)
def test_a_failed_newcomer_turns_the_rollout_back(picture, reason):
    step = plan(FLEET, ROLLOUT, machines("old:serving old:serving old:serving " + picture), UNLIMITED, NOW)
    assert decided(step) == "destroy new-3"
    assert step.actions[0].failed
    assert step.rollout.direction == "back"
    assert step.rollout.reason.startswith(reason)


@pytest.mark.parametrize("picture", ["old:stopped", "old:ill", "old:late"])
def test_old_machines_that_fail_are_not_held_against_the_new_image(picture):
    step = plan(FLEET, ROLLOUT, machines(f"{picture} old:serving old:serving new:booting"), UNLIMITED, NOW)
    assert step.rollout.direction == "forward"
    assert not step.rollout.failures


def test_failures_are_allowed_as_written():
    patient = replace(FLEET, strategy=replace(FLEET.strategy, max_failures=Amount(1)))
    picture = machines("old:serving old:serving old:serving new:broken")
    first = plan(patient, ROLLOUT, picture, UNLIMITED, NOW)
    assert decided(first) == "destroy new-3, launch 2"
    again = plan(patient, first.rollout, [*picture[:3], replace(picture[3], minion_id="another")], UNLIMITED, NOW)
    assert again.rollout.direction == "back"


@pytest.mark.parametrize(
    ("picture", "decision"),
    [
        pytest.param("old:serving old:serving old:serving", "rolled back", id="the old ones stayed"),
        pytest.param("old:serving old:unwell old:unknown", "rolled back", id="those that stayed need no new check"),
        pytest.param("old:serving old:serving new:booting", "destroy new-2, launch 1", id="the missing come back"),
        pytest.param("old:serving old:serving new:serving", "launch 1", id="a healthy new one holds the floor"),
        pytest.param("old:serving old:serving old:serving new:serving", "destroy new-3", id="then it goes"),
        pytest.param("old:serving old:tainted old:serving", "rolled back", id="a tainted one that stayed stays"),
    ],
)
def test_back(picture, decision):
    back = replace(ROLLOUT, direction="back", reason="new-9: no nginx")
    assert decided(plan(FLEET, back, machines(picture), UNLIMITED, NOW)) == decision


def test_of_what_stayed_and_is_too_much_on_the_way_back_the_tainted_goes():
    back = replace(ROLLOUT, direction="back", source=2, reason="new-9: no nginx")
    stayed = [replace(one, born=100.0) for one in machines("new:serving new:tainted new:serving new:serving")]
    step = plan(FLEET, back, stayed, UNLIMITED, NOW)
    assert decided(step) == "destroy new-1"


def test_a_tainted_machine_is_told_of():
    step = plan(FLEET, ROLLOUT, machines("new:tainted new:serving new:serving old:serving"), UNLIMITED, NOW)
    assert step.rollout.verdict == "2 of 3 healthy on generation 2, 1 tainted, 1 of other generations"
    step = plan(FLEET, ROLLOUT, machines("new:serving new:tainted new:serving new:serving"), UNLIMITED, NOW)
    assert [action.reason for action in step.actions] == ["tainted: by hand"]


def test_what_was_launched_on_the_way_back_must_be_healthy():
    back = replace(ROLLOUT, direction="back", reason="new-9: no nginx")
    *stayed, last = machines("old:serving old:serving old:unwell")
    assert decided(plan(FLEET, back, [*stayed, replace(last, born=950.0)], UNLIMITED, NOW)) == "wait"


def test_a_first_generation_rolls_back_to_nothing():
    first = replace(ROLLOUT, source=None, old_size=0)
    step = plan(FLEET, first, machines("new:broken new:serving new:booting"), UNLIMITED, NOW)
    assert decided(step) == "destroy new-0 new-2 new-1"
    assert plan(FLEET, step.rollout, [], UNLIMITED, NOW).rollout.outcome == "rolled back"


@pytest.mark.parametrize(
    ("changes", "commands"),
    [
        pytest.param({"kind": "rollback"}, ["fleet.rollback web"], id="a rollback that fails"),
        pytest.param({"direction": "back", "target": 3, "source": 2}, ["fleet.roll", "fleet.rollback"], id="back"),
    ],
)
def test_what_cannot_turn_back_holds_and_is_paused(changes, commands):
    step = plan(FLEET, replace(ROLLOUT, **changes), machines("old:serving old:serving new:broken"), UNLIMITED, NOW)
    assert step.rollout.direction == "hold"
    assert "destroy new-2" in decided(step)
    assert "launch" not in decided(step)
    held = plan(FLEET, step.rollout, machines("old:serving old:serving"), UNLIMITED, NOW)
    assert held.rollout.outcome == "paused"
    assert all(f"`salt-run {command}" in held.rollout.reason for command in commands)


def test_on_failure_pause_leaves_the_healthy_ones():
    fleet = replace(FLEET, strategy=replace(FLEET.strategy, on_failure="pause"))
    step = plan(fleet, ROLLOUT, machines("old:serving old:serving old:serving new:broken"), UNLIMITED, NOW)
    assert (decided(step), step.rollout.direction) == ("destroy new-3", "hold")


def test_silence_turns_back_and_then_pauses():
    silent = replace(ROLLOUT, progress_at=NOW - FLEET.strategy.progress_within, verdict="waiting")
    picture = machines("old:unknown old:unknown old:serving new:serving")
    back = plan(FLEET, silent, picture, UNLIMITED, NOW).rollout
    assert (back.direction, back.reason) == ("back", "no progress for 1200 s: waiting")
    paused = plan(FLEET, replace(back, progress_at=silent.progress_at), picture, UNLIMITED, NOW)
    assert (paused.rollout.outcome, paused.actions) == ("paused", ())


def test_a_fleet_is_destroyed_all_at_once():
    rollout = replace(ROLLOUT, kind="destroy", target=None)
    step = plan(FLEET, rollout, machines("old:serving old:unwell new:booting old:doomed"), UNLIMITED, NOW)
    assert decided(step) == "destroy new-2 old-1 old-0"
    assert plan(FLEET, rollout, [], UNLIMITED, NOW).rollout.outcome == "done"


@pytest.mark.parametrize(
    ("size", "decision"),
    [
        pytest.param(2, "destroy new-0", id="smaller: the oldest goes"),
        pytest.param(5, "launch 2 2", id="larger: the missing come"),
        pytest.param(0, "destroy new-0 new-1 new-2", id="written 0: all go"),
    ],
)
def test_the_size_is_live(size, decision):
    step = plan(replace(FLEET, size=size), ROLLOUT, machines("new:serving " * 3), UNLIMITED, NOW)
    assert decided(step) == decision


def test_without_surge_one_goes_before_one_comes():
    strategy = Strategy(max_surge=Amount(0), max_unavailable=Amount(1))
    step = plan(replace(FLEET, strategy=strategy), ROLLOUT, machines("old:serving " * 3), UNLIMITED, NOW)
    assert decided(step) == "destroy old-0, launch 2"


@pytest.mark.parametrize("picture", ["new:tainted new:serving new:serving", "new:touched new:serving new:serving"])
def test_the_forecast_replaces_what_is_tainted(picture):
    actions, _ = forecast(FLEET, ROLLOUT, machines(picture), NOW)
    assert [a.minion_id for a in actions if a.kind == "destroy"] == ["new-0"]
    assert [a.reason for a in actions if a.kind == "launch"] == ["3 of 3 on generation 2"]


def test_the_forecast_names_every_victim_once_and_fills_the_fleet():
    actions, _ = forecast(FLEET, ROLLOUT, machines("old:serving old:unknown old:serving new:booting"), NOW)
    assert sorted(a.minion_id for a in actions if a.kind == "destroy") == ["old-0", "old-1", "old-2"]
    assert [a.reason for a in actions if a.kind == "launch"] == ["2 of 3 on generation 2", "3 of 3 on generation 2"]
    assert all(action.reason for action in actions)


STATES = ["serving", "booting", "late", "broken", "unwell", "ill", "unknown", "stopped", "doomed"]
STATES += ["tainted", "sick", "lost", "touched", "outdated"]
WORDS = st.tuples(st.sampled_from(list(GENERATIONS)), st.sampled_from(STATES)).map(":".join)


@given(
    picture=st.lists(WORDS, max_size=8).map(" ".join),
    size=st.integers(0, 6),
    old_size=st.integers(0, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 2),
    direction=st.sampled_from(["forward", "back", "hold"]),
    kind=st.sampled_from(["roll", "rollback", "destroy"]),
)
def test_whatever_is_there_the_floor_and_the_places_hold(picture, size, old_size, surge, unavailable, direction, kind):
    strategy = Strategy(max_surge=Amount(surge), max_unavailable=Amount(unavailable))
    fleet = replace(FLEET, size=size, strategy=strategy)
    target = None if kind == "destroy" else 2
    rollout = replace(ROLLOUT, kind=kind, target=target, old_size=old_size, direction=direction)
    there = machines(picture)
    step = plan(fleet, rollout, there, UNLIMITED, NOW)
    victims = {action.minion_id for action in step.actions if action.kind == "destroy"}
    launches = sum(action.kind == "launch" for action in step.actions)
    healthy = {m.minion_id for m in there if (m.phase, m.health, m.fault) == ("serving", "yes", None)}
    wanted = 0 if kind == "destroy" else size
    assert not victims & healthy or len(healthy - victims) >= min(old_size, wanted) - unavailable
    occupying = sum(m.phase != "doomed" for m in there) - len(victims) + launches
    assert not launches or occupying <= wanted + surge
    assert step.rollout.outcome or (step.wake is not None and step.wake > NOW)
