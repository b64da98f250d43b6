"""Which signals an operator may send to which processes of a sealed machine."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from saltext.immutable.guard import policy
from saltext.immutable.guard.reach.processes import SIGNALS, protected, unfit

ALL = set(range(1, signal.SIGRTMAX + 1))


@pytest.mark.parametrize(
    ("fun", "args", "kwargs", "expected"),
    [
        pytest.param("ps.kill_pid", [4711], {}, "operate", id="a process ends"),
        pytest.param("ps.kill_pid", [], {"pid": 4711, "signal": 9}, "operate", id="at once"),
        pytest.param("ps.kill_pid", [4711, 1], {"__pub_jid": "1"}, "operate", id="or reads its config again"),
        pytest.param("ps.kill_pid", [1], {}, "change", id="but not init"),
        pytest.param("ps.kill_pid", [], {"pid": 1}, "change", id="by keyword"),
        pytest.param("ps.kill_pid", [True], {}, "change", id="which is True as well"),
        pytest.param("ps.kill_pid", [1.0], {}, "change", id="and this"),
        pytest.param("ps.kill_pid", [-1], {}, "change", id="nor everything"),
        pytest.param("ps.kill_pid", ["4711"], {}, "change", id="a process is a number"),
        pytest.param("ps.kill_pid", [], {}, "change", id="and no process none"),
        pytest.param("ps.kill_pid", [4711, 38], {}, "change", id="a signal of systemd"),
        pytest.param("ps.kill_pid", [4711], {"signal": 19}, "change", id="a stop"),
        pytest.param("ps.kill_pid", [4711], {"signal": "9"}, "change", id="a signal is a number"),
        pytest.param("ps.kill_pid", [4711], {"signal": True}, "change", id="and not True"),
        pytest.param("ps.kill_pid", [4711, 9, "x"], {}, "change", id="nothing else"),
        pytest.param("ps.pkill", ["nginx"], {"signal": 1, "user": "www"}, "operate", id="processes by name"),
        pytest.param("ps.pkill", ["nginx", "www", 1], {}, "operate", id="by position"),
        pytest.param("ps.pkill", ["nginx", None, 38], {}, "change", id="no signal of systemd"),
        pytest.param("ps.pkill", ["systemd"], {"signal": 15}, "change", id="not systemd"),
        pytest.param("ps.pkill", ["systemd-journald"], {}, "change", id="nor a part of it"),
        pytest.param("ps.pkill", [], {"pattern": "init"}, "change", id="nor init"),
        pytest.param("ps.pkill", ["salt-minion"], {}, "change", id="nor Salt"),
        pytest.param("ps.pkill", ["ini"], {}, "change", id="nor what is in such a name"),
        pytest.param("ps.pkill", ["cloud-init"], {}, "operate", id="a longer name than init is another"),
        pytest.param("ps.pkill", ["python3"], {}, "change", id="a longer one than python may be Salt's"),
        pytest.param("ps.pkill", [""], {}, "change", id="nor all"),
        pytest.param("ps.pkill", [["nginx"]], {}, "change", id="a pattern is text"),
        pytest.param("ps.proc_info", [4711, ["pid", "name"]], {}, "read", id="what a process is"),
        pytest.param("ps.proc_info", [4711], {"attrs": ["pid", "environ"]}, "change", id="but not its variables"),
        pytest.param("ps.proc_info", [4711], {}, "change", id="which are among all"),
        pytest.param("ps.proc_info", [4711, []], {}, "change", id="or none"),
        pytest.param("ps.proc_info", [4711, "environ"], {}, "change", id="attributes are a list"),
        pytest.param("ps.pkill", ["java"], {"full": True}, "change", id="not by its command line"),
        pytest.param("ps.pkill", ["java", None, 15, True], {}, "change", id="nor that by position"),
    ],
)
def test_the_class_of_a_signal(fun, args, kwargs, expected):
    assert policy.classify(fun, args, kwargs) == expected


@pytest.mark.parametrize("number", sorted(ALL))
def test_only_ordinary_signals_are_sent(number):
    assert (unfit("ps.kill_pid", [4711, number], {}) is None) == (number in SIGNALS)
    assert signal.Signals(15) in SIGNALS and not {signal.SIGSTOP, signal.SIGRTMIN + 4} & SIGNALS


@pytest.fixture
def proc(tmp_path) -> Path:
    """What runs on a machine: pid to name and command line."""
    running = {
        1: ("systemd", "/sbin/init"),
        2: ("kthreadd", ""),
        10: ("systemd-journal", "/usr/lib/systemd/systemd-journald"),
        20: ("/opt/salt/bin/p", "/opt/salt/bin/python3 /usr/bin/salt-minion Minion._thread_return"),
        30: ("nginx", "nginx: master process"),
    }
    for pid, (comm, command) in running.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{comm}\n")
        (tmp_path / str(pid) / "cmdline").write_text(command.replace(" ", "\0"))
    (tmp_path / "40").mkdir()
    (tmp_path / "meminfo").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("fun", "target", "found"),
    [
        ("ps.kill_pid", 30, None),
        ("ps.kill_pid", 99, None),
        ("ps.kill_pid", 1, "systemd (pid 1)"),
        ("ps.kill_pid", 10, "systemd-journal (pid 10)"),
        ("ps.kill_pid", 20, "/opt/salt/bin/p (pid 20)"),
        ("ps.pkill", "nginx", None),
        ("ps.pkill", "opt", "/opt/salt/bin/p (pid 20)"),
        ("ps.pkill", "journal", "systemd-journal (pid 10)"),
        ("service.restart", 1, None),
    ],
)
def test_what_runs_says_which_process_a_signal_would_reach(proc, fun, target, found):
    assert protected(fun, [target], {}, str(proc)) == found
    assert protected(fun, [], {"pid": target, "pattern": target}, str(proc)) == found
