"""One time for all that a bake wrote, so that what is baked twice from the same is the same.

What was unpacked with an older time of its own keeps it. The time is not that of the bake, nor always the same: it is
made from the content, for a web server tells its visitors by time and size whether a file is another one.
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
"""Seconds from then, 388 days, one of which it is."""
_FLAGS = slice(4, 8)
_TIME = slice(8, 12)
"""Of a .pyc file: how it is checked (0: by the time of its source), and that time; PEP 552."""


def settle(tree: Path, entries: Iterable[Mapping[str, Any]], since: float) -> list[dict[str, Any]]:
    """Give all in ``tree`` that was written after ``since`` the one time; return its ``entries`` as they are then.

    ``entries``: what `manifest.entries` says of the tree.
    """
    found = [dict(entry) for entry in entries]
    young = [entry for entry in found if entry["mtime"] >= int(since)]
    time = _time(young)
    for entry in young:
        place = f"{tree}/{entry['path']}"
        if _is_bytecode(entry) and _point(place, int(since), time):
            entry["sha256"] = manifest.sha256(place)
        os.utime(place, (time, time), follow_symlinks=False)
        entry["mtime"] = time
    return found


def _time(young: Iterable[Mapping[str, Any]]) -> int:
    """Return the time that files have by what they are; bytecode, which knows times itself, follows from them."""
    lasting = [{**entry, "mtime": 0} for entry in young if not _is_bytecode(entry)]
    content = hashlib.sha256("".join(map(manifest.canonical, lasting)).encode()).digest()
    return _EPOCH + int.from_bytes(content[:4], "big") % _SPAN


def _is_bytecode(entry: Mapping[str, Any]) -> bool:
    return entry["type"] == "file" and str(entry["path"]).endswith(".pyc")


def _point(place: str, since: int, time: int) -> bool:
    """Let bytecode that is checked by the time of its source know the new one, if the source is as young."""
    with open(place, "r+b") as file:
        head = file.read(12)
        checked = len(head) == 12 and not any(head[_FLAGS])
        if not checked or int.from_bytes(head[_TIME], "little") < since:
            return False
        file.seek(_TIME.start)
        file.write(time.to_bytes(4, "little"))
        return True
