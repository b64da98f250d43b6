"""What the kernel says of processes, which may end while it is asked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def command_of(pid: int) -> str:
    """Return the name of a process's program, '' when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
