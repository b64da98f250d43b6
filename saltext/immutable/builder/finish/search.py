"""Look for bytes in all files of a tree, in one pass: each file is read once, whatever is looked for."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

OVERLAP = 256
"""Bytes of a file that are seen twice where it is read in pieces: nothing longer is found for certain."""
_CHUNK = 1 << 20
_ELF = b"\x7fELF"
Key = TypeVar("Key")


@dataclass(frozen=True)
class Look:
    """What is looked for."""

    needles: tuple[bytes, ...]
    """Any of them has to be there."""
    certain: re.Pattern[bytes] | None = None
    """And where it is, this."""
    but: tuple[str, ...] = ()
    """Beginnings of paths where it is not looked for."""
    programs: bool = True
    """Whether it is looked for in programs and libraries, too."""

    def seen(self, window: bytes) -> bool:
        """Tell whether it is in these bytes."""
        there = any(needle in window for needle in self.needles)
        return there and (self.certain is None or bool(self.certain.search(window)))


def search(tree: Path, looks: Mapping[Key, Look]) -> dict[Key, list[str]]:
    """Return the files, relative to ``tree``, that hold what is looked for; nothing of what no file holds."""
    found: dict[Key, list[str]] = {}
    for path in _files(tree) if looks else ():
        name = str(path.relative_to(tree))
        for key in _held(path, {key: look for key, look in looks.items() if not name.startswith(look.but)}):
            found.setdefault(key, []).append(name)
    return found


def _files(tree: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _held(path: Path, left: dict[Key, Look]) -> Iterator[Key]:
    """Yield what a file holds; it is read in pieces that overlap."""
    before = b""
    with path.open("rb", buffering=0) as file:
        while left and (piece := file.read(_CHUNK)):
            window = before + piece
            if not before and piece.startswith(_ELF):
                left = {key: look for key, look in left.items() if look.programs}
            for key in [key for key, look in left.items() if look.seen(window)]:
                del left[key]
                yield key
            before = window[-OVERLAP:]
