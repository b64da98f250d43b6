"""Search all files of a tree for several patterns at once. Each file is read one time."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

OVERLAP = 256
"""Bytes by which two consecutive pieces of a file overlap. A longer match may be missed between two pieces."""
_CHUNK = 1 << 20
_ELF = b"\x7fELF"
Key = TypeVar("Key")


@dataclass(frozen=True)
class Pattern:
    """Bytes to search for in files."""

    needles: tuple[bytes, ...]
    """One of these must be in the file."""
    confirm: re.Pattern[bytes] | None = None
    """Where a needle is found, this expression must match too."""
    skip: tuple[str, ...] = ()
    """Beginnings of paths, relative to the tree, that are not searched."""
    in_programs: bool = True
    """Whether ELF programs and libraries are searched, too."""

    def matches(self, window: bytes) -> bool:
        """Return whether the pattern matches in these bytes."""
        found = any(needle in window for needle in self.needles)
        return found and (self.confirm is None or bool(self.confirm.search(window)))


def search(tree: Path, patterns: Mapping[Key, Pattern]) -> dict[Key, list[str]]:
    """Return the files, relative to ``tree``, in which each pattern matches, by the key of the pattern.

    A pattern that matches nowhere is left out.
    """
    found: dict[Key, list[str]] = {}
    for path in _files(tree) if patterns else ():
        name = str(path.relative_to(tree))
        for key in _matching(path, {key: each for key, each in patterns.items() if not name.startswith(each.skip)}):
            found.setdefault(key, []).append(name)
    return found


def _files(tree: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def _matching(path: Path, left: dict[Key, Pattern]) -> Iterator[Key]:
    """Yield the keys of the patterns that match in a file, which is read in overlapping pieces."""
    before = b""
    with path.open("rb", buffering=0) as file:
        while left and (piece := file.read(_CHUNK)):
            window = before + piece
            if not before and piece.startswith(_ELF):
                left = {key: pattern for key, pattern in left.items() if pattern.in_programs}
            for key in [key for key, pattern in left.items() if pattern.matches(window)]:
                del left[key]
                yield key
            before = window[-OVERLAP:]
