"""What a bake knows of the services that its states declare."""

from __future__ import annotations

from dataclasses import dataclass, field
from subprocess import CompletedProcess

from saltext.immutable.builder.states import salt_call


@dataclass
class FakeMachine:
    """A machine that bakes; ``shown``: what systemd says of its units."""

    shown: str
    boot: bool = True
    asked: list[list[str]] = field(default_factory=list)

    def run(self, words: list[str]) -> CompletedProcess[str]:
        self.asked.append(words)
        return CompletedProcess(words, 0, self.shown, "")


def shown(name: str, state: str, wanted_by: str = "") -> str:
    others = "\n".join(f"{each}=" for each in ("BoundBy", "RequiredBy", "TriggeredBy", "UpheldBy"))
    return f"Id={name}\nUnitFileState={state}\n{others}\nWantedBy={wanted_by}\n"


def test_the_last_state_about_a_unit_counts():
    lines = [["sls", "base", "web"], ["service", "a.service", True], ["service", "b.service", True]]
    assert salt_call.services([*lines, ["service", "a.service", False]]) == {"a.service": False, "b.service": True}
    assert salt_call.services(None) == {}


def test_a_unit_that_nothing_starts_at_boot_is_warned_of():
    units = {"a.service": True, "b.service": True, "c.service": True, "d.service": False, "e.service": True}
    stanzas = (
        shown("a.service", "enabled", "multi-user.target"),
        shown("b.service", "disabled"),
        shown("c.service", "disabled", "a.service"),
        shown("e.service", "static"),
    )
    machine = FakeMachine("\n".join(stanzas))
    [warning] = salt_call.never_started(machine, units)
    assert warning.startswith("b.service runs in the bake, but nothing starts it at the boot of a machine")
    assert machine.asked[0][-4:] == ["a.service", "b.service", "c.service", "e.service"]


def test_without_an_init_nothing_runs_in_the_bake():
    assert salt_call.never_started(FakeMachine("", boot=False), {"a.service": True}) == []
    assert salt_call.never_started(FakeMachine(""), {"a.service": False}) == []
