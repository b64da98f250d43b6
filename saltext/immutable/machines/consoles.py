"""Start machines with a console, and read what they wrote to it, also after their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from saltext.immutable.host import Host, tail

FILE = "console.log"
"""In the folder of a machine."""
KEPT = 50
"""Consoles of destroyed machines that are kept."""
_TAIL = 1 << 16
"""Bytes at the end of a console that are read."""
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")

KEEP = "{ stdbuf -o0 head -c 33554432; exec cat >/dev/null; }"
"""A shell command that keeps the first 32 MB of a console: a machine that logs for months must not fill this host's
disk."""
_DETACHED = 'exec 7>&1; echo $$; exec "$@" >>"$0" 2>&1'
"""A shell line that tells its pid on standard output, and keeps that open in its children: its end is theirs."""
_Seen = TypeVar("_Seen")


def start(
    console: Path,
    command: Sequence[str],
    wait: Callable[[IO[bytes]], _Seen],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> _Seen:
    """Start the command of a machine whose output goes to its console, and return what ``wait`` returns.

    ``wait`` is given a file that is at its end when all processes of the machine have ended. The machine is no child of
    this process: who ends a command with all its children does not end the machines that it started.
    """
    with subprocess.Popen(
        ["setsid", "--fork", "/bin/sh", "-c", _DETACHED, str(console), *command],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=cwd,
    ) as process:
        assert process.stdout is not None
        session = int(process.stdout.readline())
        try:
            return wait(process.stdout)
        except BaseException:
            # It may not have joined its cgroup yet, in which a later clean-up would find it.
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
            raise


def keep(host: Host, folder: Path) -> None:
    """Keep the console of a machine that is destroyed, in place of the oldest one. ``folder``: the machine's."""
    log = folder / FILE
    if log.exists():
        log.rename(host.consoles / f"{folder.name}.log")
    for old in sorted(host.consoles.iterdir(), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink()


def read(host: Host, folder: Path, lines: int) -> str:
    """Return the last lines of a machine's console; '' if there is none. ``folder``: the machine's, if it is there."""
    for file in (folder / FILE, host.consoles / f"{folder.name}.log"):
        if file.exists():
            return tail(_plain(file), lines)
    return ""


def _plain(file: Path) -> str:
    """Return the end of a console as text without control characters."""
    with file.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
        text = stream.read().decode(errors="replace")
    return _CONTROL.sub("", text.replace("\r\n", "\n"))
