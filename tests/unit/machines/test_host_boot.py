"""Machines come back with their host: the unit of systemd, and one machine that cannot be started."""

from __future__ import annotations

from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.machines import host_boot


@pytest.fixture
def systemd(tmp_path, monkeypatch) -> list[Any]:
    """A host whose pid 1 is systemd; returns the commands that it was given."""
    commands: list[Any] = []
    monkeypatch.setattr(host_boot, "systemd_here", lambda: True)
    monkeypatch.setattr(host_boot, "UNITS", tmp_path / "units")
    monkeypatch.setattr(host_boot, "WANTS", tmp_path / "units/multi-user.target.wants")
    monkeypatch.setattr(host_boot, "run", lambda command, **how: commands.append(command))
    return commands


def test_the_unit_is_written_once_and_starts_the_machines_of_this_directory(host, systemd):
    assert not host_boot.enabled(host)
    host_boot.enable(host)
    assert host_boot.enabled(host) and systemd == [["systemctl", "daemon-reload"]]
    text = host_boot.unit(host).read_text()
    assert f'-m {host_boot.PROGRAM} "{host.root.resolve()}"' in text
    (host_boot.WANTS / host_boot.unit(host).name).unlink()  # as systemctl disable does
    host_boot.enable(host)
    assert not host_boot.enabled(host), "an operator disabled it"


def test_who_was_killed_before_the_unit_was_written_is_followed_by_one_who_writes_it(host, systemd, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(host_boot, "write", lambda file, text: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host_boot.enable(host)
    host_boot.enable(host)
    assert host_boot.unit(host).exists() and host_boot.enabled(host)


def test_a_host_that_takes_no_unit_runs_machines_all_the_same(host, systemd, monkeypatch, caplog):
    monkeypatch.setattr(host_boot, "write", lambda file, text: (_ for _ in ()).throw(OSError("Read-only file system")))
    host_boot.enable(host)
    assert "Read-only file system" in caplog.text


def test_one_machine_that_does_not_start_keeps_no_other_down(host, monkeypatch):
    class FakeMachine:
        upper, running = None, False
        binds: dict[str, str] = {}

        def __init__(self, minion_id: str) -> None:
            self.minion_id = minion_id

    def start_again(host, minion_id: str) -> bool:
        if minion_id == "web-2":
            raise OSError("No space left on device")
        return minion_id != "web-4"

    monkeypatch.setattr(host_boot.machines, "machines", lambda host: [FakeMachine(f"web-{n}") for n in range(1, 5)])
    monkeypatch.setattr(host_boot.machines, "start_again", start_again)

    def require(machine) -> None:
        if machine.minion_id == "web-3":
            raise CommandExecutionError("its image is damaged")

    found = host_boot.start_all(host, require)
    assert (found["started"], found["running"]) == (["web-1"], [])
    assert found["failed"] == {"web-2": "No space left on device", "web-3": "its image is damaged"}
