"""What is asked of one machine, and what may come of the answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltClientError

from saltext.immutable.fleet.books.ledger import Generation, Record
from saltext.immutable.fleet.drive.probing import PROBE_WITHIN
from saltext.immutable.fleet.drive.world import STATES_EVERY, Probe, World
from saltext.immutable.minions import LaunchFailed, NoAnswer, Outdated
from saltext.immutable.spec.model import STATES_CHECK, Fleet, FunctionCheck, ProviderSpec
from saltext.immutable.text import LONGEST

ONE = "1" * 64
PROVIDER = ProviderSpec("p")
CHECKS = (FunctionCheck("service.status", ("nginx",)), FunctionCheck("service.status", ("php",)))
RECORD = Record("web-1", "web", 1, "launched", 0.0, ref="web-1")


@dataclass
class Machine:
    """A provider and a Salt with one machine, whose answers take their time."""

    settles = 0.0
    concurrency = 1
    image: Any = ONE
    why: Any = None
    takes: float = 0.0
    now: float = 100.0
    allowed: list[float] = field(default_factory=list)

    def image_of(self, minion_id: str, within: float) -> str:
        return self._answer(self.image, within)

    def check_all(self, minion_id: str, checks: list[object], within: float) -> tuple[str, list[str | None]]:
        return self.image_of(minion_id, within), [self.why for _ in checks if not self._fails(self.why)]

    def check_together(self, minion_id: str, checks: list[object], within: float) -> list[str | None]:
        return [self._answer(self.why, within) for _ in checks[:1]] * len(checks)

    def check(self, minion_id: str, address: str | None, check: object, within: float) -> str | None:
        return self._answer(self.why, within)

    def _fails(self, value: Any) -> bool:
        if isinstance(value, Exception):
            raise value
        return False

    def _answer(self, value: Any, within: float) -> Any:
        self.allowed.append(within)
        self.now += self.takes
        if isinstance(value, Exception):
            raise value
        return value


def look(machine: Machine, proven: bool = False, record: Record = RECORD, proofs_since: float = 0.0) -> Probe:
    fleet = Fleet("web", "web", 1, "web-{token}", PROVIDER, health=CHECKS)
    generations = {1: Generation("web", 1, ONE, PROVIDER, 0.0)}
    about = (fleet, "installation", generations, {}, machine, machine)
    world = World(*about, lambda: machine.now, proofs_since=proofs_since)
    return world.probe(record, "10.0.0.1", proven)


@pytest.mark.parametrize(
    ("machine", "probe"),
    [
        pytest.param(Machine(), Probe("yes"), id="all is well"),
        pytest.param(Machine(why="nginx is dead"), Probe("no", "nginx is dead"), id="a check says no"),
        pytest.param(Machine(why=NoAnswer("silence")), Probe("unknown", "silence"), id="silence"),
        pytest.param(Machine(image=SaltClientError("no master")), Probe("unknown", "no master"), id="no master"),
        pytest.param(Machine(image=CommandExecutionError("no status")), Probe("unknown", "no status"), id="a failure"),
        pytest.param(Machine(image=LaunchFailed("db: x")), Probe("no", "db: x", wrong=True), id="a failed launch"),
        pytest.param(
            Machine(image="2" * 64),
            Probe("no", "it runs image 222222222222, not 111111111111", wrong=True),
            id="another image",
        ),
    ],
)
def test_what_an_answer_means(machine, probe):
    assert look(machine) == probe


def test_a_phase_that_fails_when_it_is_run_again_is_no_reason_to_destroy_what_serves():
    serving = replace(RECORD, ready_since=1.0)
    assert look(Machine(image=LaunchFailed("db: x")), record=serving) == Probe("no", "db: x", wrong=False)


@pytest.mark.parametrize(("since", "outdated"), [(RECORD.born, False), (RECORD.born + 1, True)])
def test_only_what_was_launched_by_an_older_version_may_be_too_old_to_prove_anything(since, outdated):
    found = look(Machine(image=Outdated("it is old")), proofs_since=since)
    assert found == Probe("unknown", "it is old", outdated=outdated)


@pytest.mark.parametrize(
    ("said", "note"),
    [
        pytest.param("line\nline", "line\nline", id="lines stay"),
        pytest.param("\x1b[2Jgone", "\\x1b[2Jgone", id="no terminal obeys it"),
        pytest.param("\ud800 \0", "\\ud800 \\x00", id="any database takes it"),
        pytest.param("x" * 100_000, "x" * LONGEST, id="it is not endless"),
    ],
)
def test_what_a_machine_says_is_kept_as_plain_text(said, note):
    assert look(Machine(why=said)).note == note
    assert look(Machine(why=NoAnswer(said))).note == note


def test_a_look_has_one_deadline_for_all_questions():
    machine = Machine(takes=6.0)
    assert look(machine).health == "yes"
    assert machine.allowed == [PROBE_WITHIN, PROBE_WITHIN - 6], "the image and the first check are one question"
    assert look(Machine(takes=16.0)) == Probe("unknown", "all questions together took too long")


def test_an_image_that_was_told_once_is_not_asked_for_again():
    machine = Machine()
    look(machine, proven=True)
    assert len(machine.allowed) == len(CHECKS)


def test_services_that_ran_are_asked_about_again_after_a_while():
    asked: list[list[str]] = []

    class Recording(Machine):
        def check_together(self, minion_id, checks, within):
            asked.append([check.fun for check in checks])
            return [None for _ in checks]

    machine = Recording()
    fleet = Fleet("web", "web", 1, "web-{token}", PROVIDER, health=CHECKS[:1])
    world = World(fleet, "i", {1: Generation("web", 1, ONE, PROVIDER, 0.0)}, {}, machine, machine, lambda: machine.now)
    for machine.now in (100.0, 105.0, 100.0 + STATES_EVERY):
        assert world.probe(RECORD, "10.0.0.1", True).health == "yes"
    both = [STATES_CHECK.fun, CHECKS[0].fun]
    assert asked == [both, both[1:], both]


def test_last_words_are_only_printed():
    machine = Machine()
    machine.console = lambda ref: "x" * 30_000 + "\n\x1b]0;owned\x07\x00\nthe end"
    machine.destroy = lambda ref: None
    fleet = Fleet("web", "web", 1, "web-{token}", PROVIDER, health=CHECKS)
    world = World(fleet, "installation", {}, {}, machine, machine, lambda: machine.now)
    words = world.destroy(replace(RECORD, intent="failed"))
    assert words.endswith("\n\\x1b]0;owned\\x07\\x00\nthe end")
    assert len(words) < 21_000
