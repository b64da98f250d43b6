"""Checkouts of git in a layer, without what differs from bake to bake: when and where they were made.

Git writes that into the logs of its references, with the host name, and into its index, with the times and inodes of
files, so that it need not read them again. In an image they are other files, which git reads once more anyway.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from saltext.immutable.host import remove

_OTHERS = ("modules", "worktrees")
"""Folders of a repository with further ones."""
_VERSIONS = (2, 3)
"""Of the index: in version 4 names are compressed (gitformat-index(5))."""
_HEAD, _FIXED, _CHECKSUM = 12, 62, 20
"""Bytes of the index: before its first entry; of an entry, before its name; of the checksum at its end."""
_STAT = (slice(0, 24), slice(28, 36))
"""In an entry: times, device and inode of the file, and its owner."""
_FLAGS, _EXTENDED = slice(60, 62), 0x4000
"""In an entry: flags. The one for two more bytes of them."""


def level(tree: Path) -> None:
    """Make the checkouts in the tree of a layer alike in each bake."""
    for found in tree.rglob(".git"):
        if found.is_dir() and not found.is_symlink():
            _level(found)


def _level(repository: Path) -> None:
    """Make a folder of git alike, and those of its submodules and work trees, which are below it."""
    for folder, folders, names in os.walk(repository):
        if Path(folder) != repository and "HEAD" not in names:
            continue  # a folder in the name of a submodule
        folders[:] = [name for name in folders if name in _OTHERS]
        remove(Path(folder, "logs"))
        index = Path(folder, "index")
        if "index" in names and not index.is_symlink() and index.is_file():
            data = index.read_bytes()
            if (new := without_stat(data)) != data:
                index.write_bytes(new)


def without_stat(index: bytes) -> bytes:
    """Return an index of git without times, inodes and owners of files; as it is, where it has another form."""
    number, position, data = int.from_bytes(index[8:_HEAD], "big"), _HEAD, bytearray(index)
    version = int.from_bytes(index[4:8], "big")
    checked = hashlib.sha1(index[:-_CHECKSUM], usedforsecurity=False).digest() == index[-_CHECKSUM:]
    if index[:4] != b"DIRC" or version not in _VERSIONS or not checked:
        return index
    for _ in range(number):
        entry = index[position : position + _FIXED]
        more = 2 if int.from_bytes(entry[_FLAGS], "big") & _EXTENDED else 0
        end = index.find(b"\0", position + _FIXED + more)
        if len(entry) < _FIXED or end < 0:
            return index
        for part in _STAT:
            data[position + part.start : position + part.stop] = bytes(part.stop - part.start)
        position += (end - position) // 8 * 8 + 8
    data[-_CHECKSUM:] = hashlib.sha1(data[:-_CHECKSUM], usedforsecurity=False).digest()
    return bytes(data)
