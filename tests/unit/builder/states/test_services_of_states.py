"""What a bake knows of the services that its states declare."""

from __future__ import annotations

from dataclasses import dataclass, field
from subprocess import CompletedProcess

from saltext.immutable.builder.states import state_run


@dataclass
class FakeMachine:
    """A machine that bakes; ``shown``: what systemd says of its units."""

    shown: str = ""
    boot: bool = True
    asked: list[list[str]] = field(default_factory=list)

    def run(self, words: list[str]) -> CompletedProcess[str]:
        self.asked.append(words)
        return CompletedProcess(words, 0, self.shown, "")


def shown(state: str, starter: str = "", loaded: str = "loaded", kind: str = "simple") -> str:
    return f"LoadState={loaded}\nUnitFileState={state}\nType={kind}\nBoundBy=\n{starter}\n"


def declared(**units: bool) -> list[list[object]]:
    return [["sls", "base", "web"], *(["service", f"{name}.service", runs] for name, runs in units.items())]


def test_the_last_state_about_a_unit_counts():
    lines = [*declared(a=True, b=True), ["service", "a.service", False]]
    machine = FakeMachine(shown("enabled"))
    assert state_run.services(machine, lines, ()) == ({"a.service": False, "b.service": True}, [])
    assert state_run.services(FakeMachine(), None, ()) == ({}, [])


def test_a_unit_that_nothing_starts_at_boot_is_warned_of():
    stanzas = (
        shown("enabled", "WantedBy=multi-user.target"),
        shown("disabled"),
        shown("disabled", "WantedBy=a.service"),
        shown("disabled", "TriggeredBy=e.socket"),
        shown("static"),
        shown("static", kind="dbus"),
    )
    machine = FakeMachine("\n".join(stanzas))
    units = declared(a=True, b=True, c=True, d=False, e=True, f=True, g=True)
    found, warnings = state_run.services(machine, units, ())
    assert [unit for unit, runs in found.items() if not runs] == ["d.service"]
    assert [warning.partition(" ")[0] for warning in warnings] == ["b.service", "f.service"]
    assert "d.service" not in machine.asked[0]


def test_a_unit_that_the_layer_removes_or_masks_is_not_to_run():
    gone = (shown("", loaded="not-found"), shown("masked", loaded="masked"))
    machine = FakeMachine("\n".join((*gone, shown("enabled"))))
    found, warnings = state_run.services(machine, declared(own=True), ["exim4.service", "cron.service"])
    assert found == {"own.service": True, "exim4.service": False, "cron.service": False} and warnings == []


def test_without_an_init_nothing_is_known_but_what_is_declared():
    assert state_run.services(FakeMachine(boot=False), declared(a=True), ()) == ({"a.service": True}, [])
