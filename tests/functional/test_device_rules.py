"""The devices of a machine on a host with cgroup v2 alone, asked of the kernel by a process in such a cgroup."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.host import systemd_here
from saltext.immutable.machines import cgroup, device_rules

UNIFIED = [tree for tree in cgroup.hierarchies() if tree.unified]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root"),
    pytest.mark.skipif(not UNIFIED, reason="no hierarchy of cgroup v2 is mounted"),
    pytest.mark.skipif(systemd_here(), reason="systemd is pid 1 and limits the devices of machines by their scopes"),
]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[cgroup.Cgroup]:
    monkeypatch.setattr(cgroup, "hierarchies", lambda: UNIFIED)
    made = cgroup.Cgroup(f"test-{secrets.token_hex(4)}", closed=True)
    yield made
    made.kill()
    made.remove()


def say(machine: cgroup.Cgroup, line: str) -> str:
    command = [*machine.start_command(), "/bin/sh", "-c", line]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("mknod {new} b 254 0", id="a disk"),
        pytest.param("mknod {new} c 1 1", id="the host's memory"),
        pytest.param("head -c 1 {disk}", id="a disk whose node is there"),
        pytest.param("head -c 1 {kmsg}", id="the kernel's log"),
        pytest.param("echo x > {disk}", id="a disk, to write"),
    ],
)
def test_no_other_device_is_made_or_used(machine, tmp_path, line):
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(254, 0))
    os.mknod(tmp_path / "kmsg", 0o20600, os.makedev(1, 11))
    said = say(machine, line.format(new=tmp_path / "new", disk=tmp_path / "disk", kmsg=tmp_path / "kmsg"))
    assert "Operation not permitted" in said, said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("echo x > /dev/null && echo yes", "yes", id="null"),
        pytest.param("head -c 3 /dev/zero | wc -c", "3", id="zero"),
        pytest.param("head -c 2 /dev/urandom | wc -c", "2", id="urandom"),
        pytest.param("mknod {new} c 0 0 && echo yes", "yes", id="a whiteout"),
        pytest.param("script -qc 'echo yes' /dev/null", "yes", id="a terminal"),
    ],
)
def test_it_has_what_programs_need(machine, tmp_path, line, says):
    assert say(machine, line.format(new=tmp_path / "new")).strip() == says


def test_a_group_below_cannot_loosen_it(machine, tmp_path):
    machine.start_command()
    (below,) = (folder / "below" for folder in machine.folders())
    below.mkdir()
    device_rules.limit(below, ["b 254:* rwm"])
    line = f"echo $$ > {below}/cgroup.procs; mknod {tmp_path}/new b 254 0; grep -c below /proc/self/cgroup"
    said = subprocess.run(["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "Operation not permitted" in said.stdout and said.stdout.strip().endswith("1"), said


def test_other_processes_keep_their_devices(machine, tmp_path):
    machine.start_command()
    os.mknod(tmp_path / "disk", 0o60600, os.makedev(254, 0))


@pytest.mark.parametrize("number", [None, 10_000])
def test_no_machine_starts_where_the_kernel_does_not_take_it(machine, monkeypatch, number):
    monkeypatch.setattr(device_rules, "_SYSTEM_CALLS", {os.uname().machine: number} if number else {})
    with pytest.raises(CommandExecutionError, match="cannot keep the processes .* CONFIG_CGROUP_BPF"):
        machine.start_command()


def test_where_files_of_v1_say_it_no_program_does(monkeypatch):
    """Both hierarchies are mounted here, perhaps; one that limits devices is enough."""
    asked: list[Path] = []
    monkeypatch.setattr(device_rules, "limit", lambda folder, rules: asked.append(folder))
    made = cgroup.Cgroup(f"test-{secrets.token_hex(4)}", closed=True)
    made.start_command()
    made.remove()
    files = any("devices" in tree.controllers for tree in cgroup.hierarchies())
    assert len(asked) == (0 if files else len(UNIFIED))
