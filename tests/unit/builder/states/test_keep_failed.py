"""A bake whose states failed waits with its machine, and then ends as it would have."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import phases
from saltext.immutable.builder.finish.secrets import Secret
from saltext.immutable.builder.states import keep_failed
from saltext.immutable.machines import qemu


class FakeMachine:
    """A machine with a mark, which goes after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.marked = looks, False

    def run(self, words: list[str]) -> CompletedProcess[str]:
        if words[0] == "touch":
            self.marked = True
        else:
            self.looks -= 1
        return CompletedProcess(words, int(words[0] == "test" and self.looks < 0), "", "")


def failing(machine: FakeMachine, seconds: float) -> tuple[list[float], list[str]]:
    """Fail, and return the seconds slept and what was reported meanwhile."""
    slept, told = list[float](), list[str]()
    order, secret = {"recipe": "web", "keep_failed": seconds}, Secret("db:password", "swordfish")
    with (
        pytest.raises(CommandExecutionError, match="state x failed: swordfish"),
        phases.report_to(told.append),
        keep_failed.if_failed(machine, order, [secret], slept.append),
    ):
        raise CommandExecutionError("state x failed: swordfish")
    return slept, told


def test_it_waits_until_somebody_takes_the_mark_away():
    machine = FakeMachine(looks=3)
    slept, [told] = failing(machine, 3600)
    assert machine.marked and len(slept) == 3
    assert told.startswith("state x failed: <db:password>\nits machine is kept for 3600 s: `salt-run image.shell web@f")


def test_it_ends_by_itself(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(keep_failed.time, "monotonic", lambda: float(next(clock)))
    slept, _ = failing(FakeMachine(looks=1000), 5)
    assert len(slept) < 6


def test_a_machine_that_has_ended_is_not_kept(monkeypatch):
    machine = FakeMachine(looks=3)

    def ended(words):
        raise CommandExecutionError("machine web-bake is not running")

    monkeypatch.setattr(machine, "run", ended)
    failing(machine, 3600)


def test_one_that_somebody_runs_a_command_in_is_kept(monkeypatch):
    machine = FakeMachine(looks=3)

    def busy(words):
        raise qemu.Busy("it runs another command")

    monkeypatch.setattr(machine, "run", busy)
    assert keep_failed.is_kept(machine)


def test_nobody_waits_who_did_not_ask_for_it():
    machine = FakeMachine(looks=3)
    assert failing(machine, 0) == ([], []) and not machine.marked


def test_states_that_succeed_are_not_waited_for():
    machine = FakeMachine(looks=3)
    with keep_failed.if_failed(machine, {"recipe": "web", "keep_failed": 60}, []):
        pass
    assert not machine.marked
