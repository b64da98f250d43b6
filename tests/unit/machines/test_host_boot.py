"""Machines come back with their host: the unit of systemd, and one machine that cannot be started."""

from __future__ import annotations

import time
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.machines import commands, host_boot
from saltext.immutable.machines.description import Machine


@pytest.fixture
def systemd(tmp_path, monkeypatch) -> list[Any]:
    """A host whose pid 1 is systemd; returns the commands that it was given."""
    commands: list[Any] = []
    monkeypatch.setattr(host_boot, "systemd_here", lambda: True)
    monkeypatch.setattr(host_boot.os, "geteuid", lambda: 0)
    monkeypatch.setattr(host_boot, "UNITS", tmp_path / "units")
    monkeypatch.setattr(host_boot, "WANTS", tmp_path / "units/multi-user.target.wants")
    monkeypatch.setattr(host_boot, "run", lambda command, **how: commands.append(command))
    return commands


def is_enabled(host) -> bool:
    return host_boot.unit(host).exists() and (host_boot.WANTS / host_boot.unit(host).name).is_symlink()


def test_the_unit_is_written_once_and_starts_the_machines_of_this_directory(host, systemd):
    host_boot.enable(host)
    assert is_enabled(host) and systemd == [["systemctl", "daemon-reload"]]
    text = host_boot.unit(host).read_text()
    assert f'-m {host_boot.PROGRAM} "{host.root.resolve()}"' in text
    (host_boot.WANTS / host_boot.unit(host).name).unlink()  # as systemctl disable does
    host_boot.enable(host)
    assert not is_enabled(host), "an operator disabled it"


def test_who_was_killed_before_the_unit_was_written_is_followed_by_one_who_writes_it(host, systemd, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(host_boot, "write", lambda file, text: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            host_boot.enable(host)
    host_boot.enable(host)
    assert is_enabled(host)


def test_a_host_that_takes_no_unit_runs_machines_all_the_same(host, systemd, monkeypatch, caplog):
    monkeypatch.setattr(host_boot, "write", lambda file, text: (_ for _ in ()).throw(OSError("Read-only file system")))
    host_boot.enable(host)
    host_boot.enable(host)
    assert caplog.text.count("Read-only file system") == 1, "each list of machines would say it again"


def test_without_root_no_unit_is_written(host, systemd, monkeypatch):
    monkeypatch.setattr(host_boot.os, "geteuid", lambda: 1000)
    host_boot.enable(host)
    assert not is_enabled(host) and systemd == []


def machine(minion_id: str = "web-1", **changes: Any) -> Machine:
    known = {"image": "a" * 64, "lower": (), "minion": {}, "bridge": "im0", "subnet": "10.0.0.0/24", "started": True}
    return Machine(minion_id, **{**known, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machines", "enabled"),
    [
        pytest.param([], False, id="a host that only bakes"),
        pytest.param([machine(upper="/tmp/upper")], False, id="a machine that bakes"),
        pytest.param([machine()], True, id="a machine that an older version launched"),
    ],
)
def test_a_list_enables_the_unit_where_machines_are(host, systemd, monkeypatch, machines, enabled):
    monkeypatch.setattr(commands.machines, "machines", lambda host: machines)
    assert len(commands.list_machines(host)) == enabled
    assert is_enabled(host) == enabled


@pytest.mark.parametrize(
    ("changes", "running", "ended"),
    [
        pytest.param({"boot_id": "this"}, False, False, id="it stopped by itself"),
        pytest.param({"boot_id": "another"}, False, True, id="the host has booted since"),
        pytest.param({"boot_id": "another"}, True, False, id="it is being started again"),
        pytest.param({"boot_id": "another", "started": False}, False, False, id="its launch never ended"),
        pytest.param({"born": 4999.0}, False, True, id="an older version launched it before the boot"),
        pytest.param({"born": 5001.0}, False, False, id="an older version launched it after the boot"),
    ],
)
def test_a_machine_ended_with_its_host_by_the_boot_alone(host, monkeypatch, changes, running, ended):
    """Whether a unit starts machines at a boot says nothing of why one does not run."""
    monkeypatch.setattr(host_boot, "this_boot", lambda: "this")
    monkeypatch.setattr(host_boot, "_booted_at", lambda: 5000.0)
    monkeypatch.setattr(commands.machines, "alive", lambda host, machine: running)
    monkeypatch.setattr(commands.machines, "machines", lambda host: [machine(**changes)])
    monkeypatch.setattr(host_boot, "systemd_here", lambda: False)
    assert [one["ended_with_host"] for one in commands.list_machines(host)] == [ended]


def test_the_time_of_the_boot_is_in_the_past():
    assert 0 < host_boot._booted_at() <= time.time() + 1


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
