"""A throw-away copy of an image: a shell at a terminal, one command, what it may touch, and that nothing is left."""

from __future__ import annotations

import json
import os
import pty
from contextlib import suppress
from pathlib import Path

import pytest
from support.estate import wait_for

from saltext.immutable.machines import machine as machines

pytestmark = pytest.mark.usefixtures("as_delivered")


@pytest.fixture(scope="module")
def small(estate) -> str:
    return str(estate.salt_run("image.bake", "small").data["image"])


def test_a_command_runs_in_a_copy_whose_changes_vanish(estate, small, nothing_is_left):
    line = "rm /usr/bin/env && touch /new && ls /new && id -u; exit 3"
    first = estate.salt_run("image.shell", small, f"command={line}", check=False)
    assert (first.returncode, first.data["stdout"]) == (3, "/new\n0\n"), first
    again = estate.salt_run("image.shell", small, "command=ls /new /usr/bin/env", check=False)
    assert (again.returncode, again.data["stdout"]) == (2, "/usr/bin/env\n")
    assert estate.salt_run("image.verify", small).data["verified"]
    nothing_is_left()


def test_a_booted_copy_has_its_services_but_no_minion(estate, small, nothing_is_left):
    line = "systemctl is-active dbus; systemctl start salt-minion; pgrep -f bin/salt-minion; true"
    said = estate.salt_run("image.shell", small, f"command={line}", "boot=True").data
    assert said["stdout"] == "active\n"
    assert estate.keys() == []
    nothing_is_left()


def test_without_a_terminal_it_says_what_to_do(estate, small, nothing_is_left):
    answer = estate.salt_run("image.shell", small, check=False)
    assert answer.returncode == 1
    assert "a shell needs a terminal" in answer.stderr + answer.stdout
    nothing_is_left()


def at_a_terminal(estate, small: str) -> tuple[int, int]:
    """Run the shell on a terminal of its own; return its pid and our end."""
    pid, ours = pty.fork()
    if pid == 0:
        words, environ = estate.typed("image.shell", small)
        os.execve(words[0], words, environ)
    return pid, ours


def heard(ours: int, end: str) -> str:
    text = ""
    with suppress(OSError):  # the other end is closed
        while end not in text:
            text += os.read(ours, 4096).decode(errors="replace")
    return text


def test_a_terminal_is_passed_through_and_ctrl_c_belongs_to_the_shell(estate, small, nothing_is_left):
    pid, ours = at_a_terminal(estate, small)
    os.write(ours, b"test -t 0 && echo terminal-$((40+2))\n")
    assert "terminal-42" in heard(ours, "terminal-42")
    os.write(ours, b"sleep 600\n")
    heard(ours, "sleep 600")
    wait_for(lambda: commands(estate).count("sleep") == 2, 30)  # the machine's init is one, too
    os.write(ours, b"\x03")
    os.write(ours, b"echo still-$((1+1)); cat /etc/hostname; exit 7\n")
    assert "still-2" in heard(ours, "still-2")
    rest = heard(ours, "\0")
    _, status = os.waitpid(pid, 0)
    os.close(ours)
    assert os.waitstatus_to_exitcode(status) == 0, rest
    nothing_is_left()


def commands(estate) -> list[str]:
    found = []
    for machine in machines.machines(estate.host):
        for pid in machine.cgroup.pids():
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def test_what_a_kill_leaves_the_next_one_removes(estate, small, nothing_is_left):
    process = estate.popen("image.shell", small, "command=sleep 600")
    wait_for(lambda: commands(estate).count("sleep") == 2, 30)
    process.kill()
    process.communicate()
    assert json.loads(estate.salt_run("image.shell", small, "command=/bin/true").stdout)["retcode"] == 0
    nothing_is_left()
