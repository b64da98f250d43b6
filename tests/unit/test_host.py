"""What the pack keeps on a host survives whoever works in it, also by kill -9."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable import host as hosts
from saltext.immutable.host import Host


@pytest.fixture
def host(tmp_path, monkeypatch) -> Host:
    monkeypatch.setattr(hosts, "require_root", lambda: None)
    found = Host(tmp_path / "immutable")
    found.prepare()
    return found


@pytest.fixture
def elsewhere(host):
    """Run lines in a process of their own, which then waits; return it when it has said that it is there."""
    started = []

    def run(lines: str) -> subprocess.Popen[str]:
        head = "import pathlib, time\nfrom saltext.immutable.host import Host\n"
        head += f"host = Host(pathlib.Path({str(host.root)!r}))\n"
        process = subprocess.Popen([sys.executable, "-c", head + lines], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout and process.stdout.readline() == "there\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


WORKS = """
with host.workspace() as place:
    (place / "fs").mkdir()
    print("there", flush=True)
    time.sleep(60)
"""
HOLDS = """
with host.lock("network"):
    print("there", flush=True)
    time.sleep(60)
"""


def test_only_root_prepares(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandExecutionError, match="run by root"):
        Host(tmp_path).prepare()


def test_nobody_else_may_look_in(host):
    assert host.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_it_has_not_is_no_attribute(host):
    with pytest.raises(AttributeError, match="cellar"):
        _ = host.cellar


def test_a_workspace_goes_away_also_when_its_work_fails(host):
    with pytest.raises(KeyboardInterrupt), host.workspace() as place:
        (place / "deep/er").mkdir(parents=True)
        raise KeyboardInterrupt
    assert not list(host.tmp.iterdir())


def test_a_workspace_is_abandoned_exactly_when_its_process_is_gone(host, elsewhere):
    process = elsewhere(WORKS)
    assert host.abandoned() == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [place.parent for place in host.abandoned()] == [host.tmp]


def test_a_workspace_of_this_process_is_not_abandoned(host):
    with host.workspace():
        assert host.abandoned() == []


def test_a_lock_is_held_until_its_process_dies(host, elsewhere):
    process = elsewhere(HOLDS)
    assert host.is_locked("network")
    with pytest.raises(CommandExecutionError, match="held by another process"), host.lock("network", wait=0.05):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not host.is_locked("network")
    with host.lock("network", wait=5.0):
        assert host.is_locked("network")


def test_asking_who_holds_a_lock_takes_it_from_nobody(host):
    assert not host.is_locked("network")
    with host.lock("network", wait=0.0):
        pass


def test_different_locks_do_not_meet(host):
    with host.lock("network"), host.lock("layers", wait=0.0):
        pass


def kinds(place: Path) -> None:
    (place / "folder/inner").mkdir(parents=True)
    (place / "file").touch()
    (place / "link").symlink_to(place / "folder")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "socket"))


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling", "pipe", "socket", "nothing"])
def test_anything_can_be_removed(tmp_path, kind):
    kinds(tmp_path)
    hosts.remove(tmp_path / kind)
    assert not os.path.lexists(tmp_path / kind)
    assert kind == "folder" or (tmp_path / "folder/inner").is_dir()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "file"
    hosts.write(file, "old", 0o600)

    def die(_fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        hosts.write(file, "new")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("old", 0o600)


def test_a_command_that_fails_says_what_it_said():
    with pytest.raises(CommandExecutionError, match="(?s)sh -c .* exited with 3; fix what it says.*no disk"):
        hosts.run(["sh", "-c", "echo no disk >&2; exit 3"])


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(CommandExecutionError, match="no-such-tool is not installed"):
        hosts.run(["no-such-tool"])


def test_bytes_that_are_no_text_are_no_error():
    assert hosts.run(["printf", r"\377"]).stdout == "\N{REPLACEMENT CHARACTER}"


def test_ctrl_c_ends_the_command_before_it_goes_on(tmp_path):
    pid = tmp_path / "pid"
    main = threading.main_thread().ident

    def press() -> None:
        while not pid.exists() or not pid.read_text().strip():
            time.sleep(0.005)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        hosts.run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"])
    assert not Path("/proc", pid.read_text().strip()).exists()
