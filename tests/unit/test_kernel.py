"""What is asked of the kernel itself: mounts that cover, capabilities of init, flags of files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from saltext.immutable import kernel

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
ASK = (
    "import os, sys; from saltext.immutable import kernel\n"
    "with kernel.fresh_procfs() as proc: print(open(f'{proc}/1/comm').read().strip())\n"
    "print(kernel.is_covered('/proc/1/comm'))"
)


def in_namespace(command: str) -> list[str]:
    """Return what ASK says in a mount namespace in which a shell command was run."""
    line = f'{command}; exec "$0" -c "$1"'
    words = ["unshare", "--mount", "sh", "-ec", line, sys.executable, ASK]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()


@root_only
@pytest.mark.parametrize(
    ("command", "covered"),
    [
        pytest.param("true", False, id="nothing"),
        pytest.param("mount --bind /etc/hostname /proc/1/comm", True, id="a file"),
        pytest.param("mount --bind /proc/$$/comm /proc/1/comm", True, id="the same of another process"),
        pytest.param("mount -t tmpfs none /proc/1", True, id="the folder of the process"),
        pytest.param("mount --bind /proc/$$ /proc/1", True, id="the folder of another process"),
    ],
)
def test_a_procfs_of_ones_own_shows_what_a_mount_covers(command, covered):
    with open("/proc/1/comm", encoding="utf-8") as file:
        assert in_namespace(command) == [file.read().strip(), str(covered)]


@pytest.mark.parametrize(
    ("status", "may"),
    [
        pytest.param("Name:\tsystemd\nCapEff:\t000001ffffffffff\n", True, id="all"),
        pytest.param("CapEff:\t00000000a80425fb\n", False, id="those of a Docker container"),
        pytest.param("Name:\tsystemd\n", True, id="nobody says"),
        pytest.param(None, True, id="no status"),
    ],
)
def test_whether_init_may_mount(tmp_path, status, may):
    (tmp_path / "1").mkdir()
    if status is not None:
        (tmp_path / "1/status").write_text(status)
    assert kernel.may_mount(str(tmp_path)) is may
