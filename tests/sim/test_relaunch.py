"""The launch phase of a fleet that runs, again: a few at a time, and the next only when those are healthy again."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from textwrap import dedent
from unittest import mock

import pytest

from saltext.immutable.fleet import relaunch
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.operations import Failed
from saltext.immutable.spec.model import Amount, Strategy
from saltext.immutable.store import Held

from .simulated import Killed
from .test_stories import ONE, Steady

STRATEGY = Strategy(max_surge=Amount(1), ready_within=30.0, progress_within=90.0)


@pytest.fixture
def fleet(estate):
    """Return what makes a fleet that runs image 1."""

    def make(size=3, **changes):
        made = estate(Steady(), size=size, strategy=replace(STRATEGY, **changes))
        made.publish(ONE)
        made.operations().roll("web")
        return made

    return make


def run(made, test=False):
    return relaunch.relaunch(made.operations(), lambda *_, **__: None, "web", test)


def log(made) -> str:
    """Return the audit log as text, the oldest entry first."""
    entries = made.operations().audit.entries("web")[::-1]
    return "\n".join(f"{one.at - entries[0].at:.1f} {one.what} {one.minion_id}: {one.reason}" for one in entries)


def story(text: str) -> str:
    return dedent(text).strip()


def test_one_after_the_other_when_each_is_healthy_again(fleet):
    made = fleet()
    assert run(made) == {"fleet": "web", "order": ["web-001", "web-002", "web-003"], "at_a_time": 1, "result": True}
    assert log(made) == story("""
        0.0 relaunch web-001: 1 of 3
        1.1 relaunched web-001: healthy after 1.1 s
        1.1 relaunch web-002: 2 of 3
        2.2 relaunched web-002: healthy after 1.1 s
        2.2 relaunch web-003: 3 of 3
        3.3 relaunched web-003: healthy after 1.1 s
        """)
    made.assert_in_order()


def test_as_many_at_a_time_as_may_be_unavailable(fleet):
    made = fleet(5, max_unavailable=Amount(50, percent=True))
    assert run(made)["at_a_time"] == 2
    assert log(made) == story("""
        0.0 relaunch web-001: 1 of 5
        0.0 relaunch web-002: 2 of 5
        1.1 relaunched web-001: healthy after 1.1 s
        1.1 relaunch web-003: 3 of 5
        1.1 relaunched web-002: healthy after 1.1 s
        1.1 relaunch web-004: 4 of 5
        2.2 relaunched web-003: healthy after 1.1 s
        2.2 relaunch web-005: 5 of 5
        2.2 relaunched web-004: healthy after 1.1 s
        3.3 relaunched web-005: healthy after 1.1 s
        """)


def test_what_serves_nobody_has_the_first_turn(fleet):
    made = fleet()
    made.world.sick.add("web-003")
    assert run(made, test=True) == {
        "fleet": "web",
        "order": ["web-003", "web-001", "web-002"],
        "at_a_time": 1,
        "result": None,
    }
    assert (made.world.relaunched, told_of(made)) == ([], [])
    run(made)
    assert made.world.relaunched == ["web-003", "web-001", "web-002"]


def told_of(made) -> list[str]:
    return [deed.what for deed in made.operations().audit.entries("web")]


def test_the_first_failure_ends_it_and_names_what_had_no_turn(fleet):
    made = fleet()
    made.world.relaunch_fails.add("web-002")
    with pytest.raises(Failed) as failed:
        run(made)
    assert str(failed.value) == (
        "fleet web: the launch phase failed: web-002: web-002: immutable.launch: the secret is not there"
        "; not begun: web-003; `salt-run fleet.relaunch_phase web` starts again"
    )
    assert made.world.relaunched == ["web-001", "web-002"]


def test_a_machine_that_does_not_get_well_is_a_failure(fleet):
    made = fleet()
    made.world.relaunch_breaks.add("web-001")
    with pytest.raises(Failed, match="web-001: not healthy within 30 s: nginx is dead; not begun: web-002, web-003"):
        run(made)


def test_a_machine_that_does_not_answer_is_a_failure(fleet):
    made = fleet()
    made.world._die("web-002")
    made.world.machines["web-002"].up = False
    with pytest.raises(Failed, match="web-002: web-002 does not answer; not begun: web-001, web-003"):
        run(made)


def test_failures_are_allowed_as_written_and_count_as_unavailable(fleet):
    made = fleet(6, max_failures=Amount(1), max_unavailable=Amount(2))
    made.world.relaunch_breaks.add("web-001")
    with pytest.raises(Failed, match="web-001: not healthy within 30 s"):
        run(made)
    assert sorted(made.world.relaunched) == [f"web-00{n}" for n in range(1, 7)]
    assert _most_under_way(made) == 2


def _most_under_way(made) -> int:
    """Return how many were out of service at once at most: begun and not well again."""
    down: set[str] = set()
    most = 0
    for deed in reversed(made.operations().audit.entries("web")):
        down = down | {deed.minion_id} if deed.what == "relaunch" else down - {deed.minion_id}
        down |= {deed.minion_id} if deed.what == "relaunch failed" else set()
        most = max(most, len(down))
    return most


def test_who_is_told_to_stop_lets_those_under_way_end(fleet, monkeypatch):
    made = fleet()
    stop = lambda: bool(made.world.relaunched)  # noqa: E731
    monkeypatch.setattr(relaunch, "stop_on_signal", lambda: nullcontext(stop))
    with pytest.raises(Interrupted, match="stopped; not begun: web-002, web-003; `salt-run fleet.relaunch_phase web`"):
        run(made)
    assert told_of(made) == ["relaunched", "relaunch"]


def test_who_was_killed_begins_anew(fleet, monkeypatch):
    made = fleet()
    monkeypatch.setattr(made.world, "submit", mock.Mock(side_effect=Killed))
    with pytest.raises(Killed):
        run(made)
    monkeypatch.undo()
    made.world.relaunched.clear()
    run(made)
    assert made.world.relaunched == ["web-001", "web-002", "web-003"]


def test_it_is_held_off_while_somebody_works_on_the_fleet(fleet):
    made = fleet()
    with made.store.lease("fleet web", user="jane"), pytest.raises(Held, match="user jane"):
        run(made)


def test_a_fleet_without_machines_has_nothing_to_do(fleet):
    made = fleet(0)
    assert run(made) == {"fleet": "web", "order": [], "at_a_time": 1, "result": True}
