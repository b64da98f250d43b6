"""What an image holds, read straight from its layers: nothing is mounted, so nothing can stay mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_OVERLAY = "trusted.overlay."
_OPAQUE = f"{_OVERLAY}opaque"


@dataclass(frozen=True)
class Entry:
    """One file of any kind."""

    path: str
    """Relative to the root, which is ``.``."""
    place: str
    """Where it really is."""
    info: os.stat_result

    @property
    def is_whiteout(self) -> bool:
        """Whether it only says that the layers below do not show this path."""
        return stat.S_ISCHR(self.info.st_mode) and self.info.st_rdev == 0

    @property
    def is_opaque(self) -> bool:
        """Whether it is a directory that hides what the layers below have in it."""
        return stat.S_ISDIR(self.info.st_mode) and _OPAQUE in os.listxattr(self.place, follow_symlinks=False)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.info.st_size if stat.S_ISREG(self.info.st_mode) else 0

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the extended attributes; overlay's own bookkeeping is none of the content."""
        names = sorted(os.listxattr(self.place, follow_symlinks=False))
        kept = (name for name in names if not name.startswith(_OVERLAY))
        return {name: os.getxattr(self.place, name, follow_symlinks=False) for name in kept}


def merged(layers: Sequence[Path]) -> Iterator[Entry]:
    """Yield all that a machine sees of a stack of layers, root layer given first, each directory before its content."""
    places = [str(layer.resolve()) for layer in reversed(layers)]
    yield _entry(".", places[0])
    yield from _merged("", places)


def _merged(folder: str, places: Sequence[str]) -> Iterator[Entry]:
    """Yield what is seen in a directory that is at each of ``places``, the top layer's first."""
    names = {place: set(os.listdir(place)) for place in places}
    for name in sorted(set().union(*names.values())):
        found = [_entry(f"{folder}{name}", f"{place}/{name}") for place in places if name in names[place]]
        if found[0].is_whiteout:
            continue
        yield found[0]
        if seen := [each.place for each in _seen(found)]:
            yield from _merged(f"{folder}{name}/", seen)


def _seen(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the directories that are seen as one; none if the topmost is no directory."""
    for entry in entries:
        if not stat.S_ISDIR(entry.info.st_mode):
            return
        yield entry
        if entry.is_opaque:
            return


def of_layer(root: Path, folder: str = "") -> Iterator[Entry]:
    """Yield all that is in one layer, whiteouts too, each directory before its content."""
    if not folder:
        yield _entry(".", str(root))
    for name in sorted(os.listdir(root / folder)):
        entry = _entry(f"{folder}{name}", f"{root}/{folder}{name}")
        yield entry
        if stat.S_ISDIR(entry.info.st_mode):
            yield from of_layer(root, f"{folder}{name}/")


def _entry(path: str, place: str) -> Entry:
    return Entry(path, place, os.lstat(place))
