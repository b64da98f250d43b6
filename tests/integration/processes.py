"""What the kernel says of processes, which may end while it is asked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def command_of(pid: int) -> str:
    """Return the name of a process's program, '' when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def of_session(leader: int) -> list[int]:
    """Return the processes of a session that live: proc(5), fields 3 and 6 of stat."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *_ = file.read_text().rpartition(")")[2].split()
            found += [int(file.parent.name)] if int(session) == leader and state != "Z" else []
    return found
