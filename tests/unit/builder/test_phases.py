"""What is reported and recorded of the phases of a bake."""

from __future__ import annotations

import pytest

from saltext.immutable.builder import phases


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second each time it is read."""
    readings = iter(range(100))
    monkeypatch.setattr(phases.time, "monotonic", lambda: float(next(readings)))


def test_each_phase_is_reported_as_it_begins_and_its_seconds_are_added_up(clock):
    reported: list[str] = []
    with phases.report_to(reported.append), phases.timed() as seconds:
        for name in ("prepare", "states", "prepare"):
            with phases.phase(name):
                pass
    assert reported == ["prepare", "states", "prepare"]
    assert seconds == {"prepare": 2.0, "states": 1.0}


def test_a_phase_that_fails_is_counted_and_the_next_record_is_empty(clock):
    with phases.timed() as first, pytest.raises(ValueError, match="no route"), phases.phase("states"):
        raise ValueError("no route")
    with phases.timed() as second:
        pass
    assert (first, second) == ({"states": 1.0}, {})


def test_a_phase_works_without_a_listener():
    with phases.phase("states"):
        done = True
    assert done


def test_a_summary_leaves_out_phases_that_took_no_time():
    assert phases.summary({"prepare": 0.9, "slim": 0.04, "states": 3.44}) == "prepare 0.9 s, states 3.4 s"
