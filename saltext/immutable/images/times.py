"""Clamp the times of files that a bake wrote, so that two bakes of the same content give the same layer.

Files that were unpacked with an older time keep it. The new time is made from the content of the layer, because web
servers tell by time and size whether a file has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.images import manifest

_EPOCH = 1_577_836_800
"""2020-01-01."""
_SPAN = 1 << 25
"""Seconds after that (388 days) among which the time is chosen."""
_FLAGS = slice(4, 8)
_TIME = slice(8, 12)
"""Positions in a .pyc file (PEP 552): flags, which are 0 where the source's time is compared, and that time."""


def clamp(tree: Path, entries: Iterable[Mapping[str, Any]], since: float) -> list[dict[str, Any]]:
    """Set the same time on all files of ``tree`` that were written after ``since``; return their new entries.

    ``entries``: what `manifest.entries` returns for the tree. ``since``: epoch seconds.
    """
    found = [dict(entry) for entry in entries]
    new = [entry for entry in found if entry["mtime"] >= int(since)]
    time = _time(new)
    for entry in new:
        path = f"{tree}/{entry['path']}"
        if _is_bytecode(entry) and _update_bytecode(path, int(since), time):
            entry["sha256"] = manifest.sha256(path)
        os.utime(path, (time, time), follow_symlinks=False)
        entry["mtime"] = time
    return found


def _time(entries: Iterable[Mapping[str, Any]]) -> int:
    """Return a time made from the content of files, without bytecode, which holds times itself."""
    sources = [{**entry, "mtime": 0} for entry in entries if not _is_bytecode(entry)]
    content = hashlib.sha256("".join(map(manifest.canonical, sources)).encode()).digest()
    return _EPOCH + int.from_bytes(content[:4], "big") % _SPAN


def _is_bytecode(entry: Mapping[str, Any]) -> bool:
    return entry["type"] == "file" and str(entry["path"]).endswith(".pyc")


def _update_bytecode(path: str, since: int, time: int) -> bool:
    """Write the new time of its source into bytecode that Python checks by time; return whether this was needed."""
    with open(path, "r+b") as file:
        head = file.read(12)
        checked = len(head) == 12 and not any(head[_FLAGS])
        if not checked or int.from_bytes(head[_TIME], "little") < since:
            return False
        file.seek(_TIME.start)
        file.write(time.to_bytes(4, "little"))
        return True
