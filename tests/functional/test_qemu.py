"""Machines with a kernel of their own, with a program in qemu's place: how they start, answer and end."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.vm import agent
from saltext.immutable.machines import qemu
from saltext.immutable.machines.cgroup import Cgroup

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: needs root")

FAKE_QEMU = """#!{python}
import os, socket, sys
sys.path[:0] = {path!r}
from saltext.immutable.builder.vm import agent
{first}
print("Linux version 6.1", flush=True)
{then}
listener = socket.socket(socket.AF_UNIX)
listener.bind("agent.sock")
listener.listen()
class Port:
    def __init__(self, peer):
        self.peer = peer
    def read(self, size):
        return self.peer.recv(size) or sys.exit()
while True:
    peer, _ = listener.accept()
    if os.fork():
        peer.close()
        continue
    for question in agent.questions(Port(peer)):
        for answer in agent.answers(question):
            peer.sendall(b"7\\nhalf of an answer\\n" + __import__("json").dumps(answer).encode() + b"\\n")
"""
DIES_BY_KVM = 'if "kvm" in sys.argv: sys.exit("kvm: it cannot be")'
LINK = qemu.Link("tap0", "02:69:00:00:00:01", "10.0.0.2", "255.255.255.0", "10.0.0.1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(qemu, "_KVM", tmp_path / "kvm")
    monkeypatch.setattr(qemu, "_SPEAKS_WITHIN", 3.0)
    (tmp_path / "kvm").touch()
    (tmp_path / "bin").mkdir()
    # Longer than the path of a socket may be.
    (tmp_path / ("long" * 30)).mkdir()
    yield tmp_path


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    made = Cgroup(f"test-{secrets.token_hex(4)}", closed=True, kvm=True)
    yield made
    made.kill()
    made.remove()


def install(place: Path, first: str = "", then: str = "") -> None:
    program = place / "bin/qemu-system-x86_64"
    program.write_text(FAKE_QEMU.format(python=sys.executable, path=sys.path, first=first, then=then))
    program.chmod(0o755)


def start(place: Path, cgroup: Cgroup, within: float = 30.0) -> tuple[qemu.VirtualMachine, str]:
    machine = qemu.VirtualMachine(str(place / ("long" * 30)), "/kernel", "/initrd", "rw", ("/a", "/b,c"), 1 << 30, 2)
    return machine, qemu.start(machine, cgroup, LINK, place / "console", place / "no-kvm", within)


def test_it_runs_commands_and_says_how_they_ended(place, cgroup):
    install(place)
    machine, emulated = start(place, cgroup)
    assert emulated == ""
    done = qemu.run(machine, ["/bin/sh", "-c", "cat; echo $WORD >&2; exit 3"], env={"WORD": "said"}, stdin="höher")
    assert (done.returncode, done.stdout, done.stderr) == (3, "höher", "said\n")
    assert qemu.run(machine, ["no-such-program"]).returncode == 127
    assert qemu.run(machine, ["/bin/sh", "-c", "kill -9 $$"]).returncode == 137
    assert qemu.run(machine, ["a\0b"]).returncode == 127
    big = qemu.run(machine, ["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"]).stdout
    assert len(big) == 3_000_000


def test_without_a_kernel_by_kvm_it_is_emulated_and_that_is_tried_once(place, cgroup):
    install(place, DIES_BY_KVM)
    _, why = start(place, cgroup)
    assert why == f"{place}/kvm starts no kernel here: kvm: it cannot be"
    cgroup.kill()
    cgroup.remove()
    install(place, 'if "kvm" in sys.argv: open("/dev/shm/tried-again", "w")')
    assert start(place, cgroup)[1] == why
    assert not os.path.exists("/dev/shm/tried-again")
    (place / "no-kvm").write_text("an-earlier-boot it was broken")
    cgroup.kill()
    cgroup.remove()
    install(place)
    assert start(place, cgroup)[1] == "", "the host has booted since"


@pytest.mark.parametrize("says", ["cannot set up guest memory", "kvm: Device or resource busy", ""])
def test_what_another_moment_may_mend_is_not_remembered_of_kvm(place, cgroup, says):
    install(place, f'if "kvm" in sys.argv: sys.exit("{says}")')
    assert start(place, cgroup)[1].startswith(f"{place}/kvm starts no kernel here")
    assert not (place / "no-kvm").exists()


def test_what_no_kernel_starts_from_says_nothing_of_kvm(place, cgroup):
    install(place, 'sys.exit("kvm: or anything else")')
    with pytest.raises(CommandExecutionError, match="started no kernel; find the reason in what it says:\nkvm: or"):
        start(place, cgroup)
    assert not (place / "no-kvm").exists()


def test_a_kernel_that_says_nothing_by_kvm_does_not_run(place, cgroup):
    install(place, 'import time\nif "kvm" in sys.argv: time.sleep(600)')
    assert start(place, cgroup)[1] == f"{place}/kvm starts no kernel here"


def test_without_kvm_it_is_emulated(place, cgroup):
    (place / "kvm").unlink()
    install(place)
    assert start(place, cgroup)[1] == f"there is no {place}/kvm"


@pytest.mark.parametrize("then", ['sys.exit("Kernel panic")', "print('Kernel panic'); __import__('time').sleep(600)"])
def test_one_that_does_not_boot_shows_its_console(place, cgroup, then):
    install(place, then=then)
    with pytest.raises(qemu.NotBooted, match=r"did not boot; find the reason in its console:\n[\s\S]*panic"):
        start(place, cgroup, within=4.0)


def test_a_machine_that_ends_ends_its_commands(place, cgroup):
    install(place)
    machine, _ = start(place, cgroup)
    timer = threading.Timer(0.5, cgroup.kill)
    timer.start()
    with pytest.raises(CommandExecutionError, match="the machine ended while it ran a command"):
        qemu.run(machine, ["sleep", "600"])
    timer.join()
    with pytest.raises(CommandExecutionError, match="the machine ended while it ran a command"):
        qemu.run(machine, ["true"])


def test_a_command_may_take_longer_than_the_agent_may_be_silent(place, cgroup, monkeypatch):
    monkeypatch.setattr(qemu, "_SILENT_FOR", 1.0)
    install(place, "agent.ALIVE = 0.2")
    machine, _ = start(place, cgroup)
    assert qemu.run(machine, ["/bin/sh", "-c", "cat; sleep 2"], stdin="a").stdout == "a"


def test_an_agent_that_is_gone_ends_its_commands(place, cgroup, monkeypatch):
    monkeypatch.setattr(qemu, "_SILENT_FOR", 1.0)
    install(place)
    machine, _ = start(place, cgroup)
    with pytest.raises(CommandExecutionError, match="the machine gave no sign for 1 s"):
        qemu.run(machine, ["/bin/sh", "-c", "kill -STOP $PPID; sleep 600"])


def test_the_command_of_a_process_that_is_gone_is_no_sign_for_another(place, cgroup, monkeypatch):
    monkeypatch.setattr(qemu, "_SILENT_FOR", 1.0)
    install(place, "agent.ALIVE = 0.2")
    machine, _ = start(place, cgroup)
    other = {"number": "another's", "command": ["sleep", "600"]}
    with pytest.raises(CommandExecutionError, match="the machine gave no sign for 1 s"):
        monkeypatch.setattr(qemu.json, "dumps", lambda data, dumps=json.dumps: f"{dumps(other)}\n{dumps(data)}")
        qemu.run(machine, ["true"])


def test_one_process_at_a_time_speaks_with_it(place, cgroup, monkeypatch):
    monkeypatch.setattr(qemu, "_TURN_WITHIN", 0.1)
    install(place)
    machine, _ = start(place, cgroup)
    other = threading.Thread(target=lambda: qemu.run(machine, ["sleep", "1"]))
    other.start()
    time.sleep(0.3)
    with pytest.raises(qemu.Busy, match="runs another command; repeat"):
        qemu.run(machine, ["true"])
    other.join()
    assert qemu.run(machine, ["true"]).returncode == 0


def test_where_memory_is_short_a_command_is_no_better_than_others(place, cgroup):
    install(place, 'open("/proc/self/oom_score_adj", "w").write("300")')
    machine, _ = start(place, cgroup)
    assert qemu.run(machine, ["cat", "/proc/self/oom_score_adj"]).stdout == "0\n"


def test_its_console_does_not_fill_the_disk(place, cgroup, monkeypatch):
    """And short writes are not counted as long ones."""
    monkeypatch.setattr(qemu.consoles, "KEEP", qemu.consoles.KEEP.replace("33554432", "100000"))
    install(place, then='for n in range(100000): sys.stderr.write(f"{n}\\n")')
    start(place, cgroup)
    assert (place / "console").stat().st_size == 100_000


class FakeStream:
    """A port from which bytes come in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def read(self, size: int) -> bytes:
        return self.pieces.pop(0)


def test_the_agent_leaves_out_what_is_no_question():
    pieces = [b'half"}\n{"number": 1, "comm', b'and": ["a"]}\n\n[1]\n7\n{"number": 2}\n']
    questions = agent.questions(FakeStream(*pieces, b'{"number": 3, "command": []}\n'))
    assert [next(questions)["number"], next(questions)["number"]] == [1, 3]
