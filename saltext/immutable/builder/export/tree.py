"""Read the files of an image straight from its layers. Nothing is mounted, so no mount can be left behind."""

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
    """One file of any type."""

    path: str
    """Relative to the root, which is ``.``."""
    source: str
    """Its absolute path in a layer."""
    info: os.stat_result

    @property
    def is_whiteout(self) -> bool:
        """Whether it is a whiteout, which hides this path in the layers below."""
        return stat.S_ISCHR(self.info.st_mode) and self.info.st_rdev == 0

    @property
    def is_opaque(self) -> bool:
        """Whether it is a directory that hides the content of that directory in the layers below."""
        return stat.S_ISDIR(self.info.st_mode) and _OPAQUE in os.listxattr(self.source, follow_symlinks=False)

    @property
    def size(self) -> int:
        """Bytes of content, 0 unless it is a regular file."""
        return self.info.st_size if stat.S_ISREG(self.info.st_mode) else 0

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the extended attributes without overlay's own."""
        names = sorted(os.listxattr(self.source, follow_symlinks=False))
        kept = (name for name in names if not name.startswith(_OVERLAY))
        return {name: os.getxattr(self.source, name, follow_symlinks=False) for name in kept}


def merged(layers: Sequence[Path]) -> Iterator[Entry]:
    """Yield the merged files of a stack of layers, as a machine sees them; each directory before its content.

    ``layers``: root first.
    """
    roots = [str(layer.resolve()) for layer in reversed(layers)]
    yield _entry(".", roots[0])
    yield from _merged("", roots)


def _merged(folder: str, sources: Sequence[str]) -> Iterator[Entry]:
    """Yield the files in a directory. ``sources``: the same directory in several layers, the top layer's first."""
    names = {source: set(os.listdir(source)) for source in sources}
    for name in sorted(set().union(*names.values())):
        found = [_entry(f"{folder}{name}", f"{source}/{name}") for source in sources if name in names[source]]
        if found[0].is_whiteout:
            continue
        yield found[0]
        if visible := [each.source for each in _visible_directories(found)]:
            yield from _merged(f"{folder}{name}/", visible)


def _visible_directories(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the directories whose content is merged; none if the topmost entry is no directory."""
    for entry in entries:
        if not stat.S_ISDIR(entry.info.st_mode):
            return
        yield entry
        if entry.is_opaque:
            return


def of_layer(root: Path, folder: str = "") -> Iterator[Entry]:
    """Yield all files of one layer, whiteouts too; each directory before its content."""
    if not folder:
        yield _entry(".", str(root))
    for name in sorted(os.listdir(root / folder)):
        entry = _entry(f"{folder}{name}", f"{root}/{folder}{name}")
        yield entry
        if stat.S_ISDIR(entry.info.st_mode):
            yield from of_layer(root, f"{folder}{name}/")


def _entry(path: str, source: str) -> Entry:
    return Entry(path, source, os.lstat(source))
