"""What machines wrote to their consoles, also after their end."""

from __future__ import annotations

import os
import re
from pathlib import Path

from saltext.immutable.host import Host, tail

FILE = "console.log"
"""In the folder of a machine."""
KEPT = 50
"""Consoles of destroyed machines that are kept."""
_TAIL = 1 << 16
"""Bytes at the end of a console that are read."""
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")


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
