"""Files that no call tells the content of."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from saltext.immutable.guard.reach.secret_files import is_secret


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/etc/salt/pki/minion/minion.pem", id="the key, where Salt has it"),
        pytest.param("/var/lib/salt/pki/minion/minion.pem", id="and where an image has it"),
        pytest.param("/var/../var/lib/./salt//pki/minion/minion.pem", id="by another path"),
        pytest.param(b"/var/lib/salt/pki/minion/minion.pem", id="in bytes"),
        pytest.param("/proc/self/root/var/lib/salt/pki/minion/minion.pem", id="through a process"),
        pytest.param("/run/immutable/glass", id="the token that opens"),
        pytest.param("/var/run/immutable/glass", id="by its old path"),
        pytest.param("/proc/1/environ", id="variables"),
        pytest.param("/proc/self/environ", id="of the minion"),
        pytest.param("/proc/1/task/1/environ", id="of a thread"),
        pytest.param("/proc/1/mem", id="memory"),
        pytest.param("/proc/kcore", id="memory of the kernel"),
        pytest.param("/proc/self/fd/0", id="what a process has open"),
        pytest.param("/proc/1/map_files/1-2", id="or has in its memory"),
        pytest.param("/dev/mem", id="all memory"),
        pytest.param("/dev/disk/by-id/x", id="a disk"),
        pytest.param("/dev/../dev/sda", id="by another path, too"),
    ],
)
def test_a_secret(path):
    assert is_secret(path, None)


@pytest.mark.parametrize(
    "path", ["/etc/hosts", "/proc/meminfo", "/proc/1/status", "/dev/shm/x", "/run/x", "a\0b", "~a\0b", "", 7, None]
)
def test_what_is_none(path):
    assert not is_secret(path, None)


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended and that nobody has asked for its result."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


@pytest.mark.parametrize("link", ["exe", "cwd", "root/etc/hosts"])
def test_what_cannot_be_followed_is_none_to_read(zombie, link):
    """Up to Python 3.12 ``os.path.realpath`` raises what the kernel says of such a link; later it stops there."""
    assert is_secret(f"/proc/{zombie}/{link}", None) or sys.version_info >= (3, 13)


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_nor_is_what_nobody_may_follow(monkeypatch, error):
    monkeypatch.setattr(os.path, "realpath", lambda path: (_ for _ in ()).throw(error(path)))
    assert is_secret("/proc/1/cwd/x", None)


def test_a_path_is_followed_to_its_end(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "minion.pem").touch()
    (tmp_path / "pki").symlink_to(keys)
    (tmp_path / "link").symlink_to(keys / "minion.pem")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("pki/minion.pem", "keys/minion.pem", "link", "./x/../link", "~/link", str(tmp_path / "link")):
        assert is_secret(path, str(tmp_path / "pki"))
    assert not is_secret("link", str(tmp_path / "other"))
