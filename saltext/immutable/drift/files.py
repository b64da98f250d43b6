"""Compare the files of a machine with those of its image."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from saltext.immutable import kernel
from saltext.immutable.drift import bytecode, tree
from saltext.immutable.drift.image import Image
from saltext.immutable.drift.item import Item
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.images.stack import Entry, parents

_UNITS = (
    "etc/init.d/",
    "etc/rc",
    "etc/systemd/",
    "lib/systemd/system/",
    "usr/lib/systemd/",
    "usr/local/lib/systemd/",
)
"""Files below these folders are listed as kind ``service``."""


@dataclass(frozen=True)
class Differences:
    """The files that differ from the image."""

    found: Mapping[str, str]
    """Path to what differs."""
    count: int
    """How many files were compared."""

    def __contains__(self, path: str) -> bool:
        return path in self.found


def differences(
    root: str,
    image: Image,
    mutable: Mutable,
    mounts: Collection[str],
    full: bool = False,
    searched: Collection[str] = (),
) -> Differences:
    """Compare all files below ``root`` with the image, except ``mutable`` paths and what is below ``mounts``.

    ``full``: read the content of every file, also where size and time are those of the image. ``searched``: those of
    the mounts in which files with rights are found.
    """
    missing = dict(image.files)
    found: dict[str, str] = {}
    count = 0
    for path, entry in tree.walk(root, mutable.to_read, mounts, searched):
        count += 1
        expected = missing.pop(path, None)
        difference = _difference(root, path, expected, entry, path in image.own, full)
        if difference and (is_always_drift(expected, entry) or not _may_differ(root, path, entry, mutable)):
            found[path] = difference
    found.update((path, "removed") for path in _removed(missing, mutable, mounts))
    return Differences(found, count)


def _may_differ(root: str, path: str, entry: Entry, mutable: Mutable) -> bool:
    return mutable.may_differ(path) or bytecode.is_made_of_source(root, path, entry.kind)


def is_always_drift(expected: Entry | None, entry: Entry) -> bool:
    """Tell whether a file is drift even in a mutable path.

    That is one with setuid, setgid or capabilities, a device, a file that nobody can change (``chattr +i``), and what
    took the place of a folder.
    """
    if expected is not None and expected.kind == "dir" and entry.kind != "dir":
        return True
    attributes = entry.xattrs or {}
    if any(flag in attributes for flag in kernel.FLAGS):
        return True
    if entry.kind in ("char", "block"):
        return bool(entry.content != [0, 0])
    rights = entry.mode & (stat.S_ISUID | stat.S_ISGID) or "security.capability" in attributes
    return entry.kind == "file" and bool(rights)


def _difference(root: str, path: str, expected: Entry | None, entry: Entry, own: bool, full: bool) -> str:
    if expected is not None:
        changes = tree.changes(expected, entry, lambda: tree.sha256(os.path.join(root, path)), full)
        return f"changed: {'; '.join(changes)}" if changes else ""
    if not own:
        return f"added: {entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"
    # `image.read` has proved its content; but whoever else may write it could change it during the comparison.
    safe = entry.kind in ("dir", "file") and entry.uid == 0 and not entry.mode & 0o022
    return "" if safe else f"changed: {entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"


def _removed(missing: Mapping[str, Entry], mutable: Mutable, mounts: Collection[str]) -> Iterator[str]:
    """Yield removed paths; of a removed folder, only the folder."""
    listed: set[str] = set()
    for path in sorted(missing):
        above = (path, *parents(path))
        known = any(each in listed or each in mounts for each in above) or missing[path].kind == tree.MOUNT
        if not known and not mutable.may_differ(path):
            listed.add(path)
            yield path


def item(path: str, difference: str, image: Image, owner: str = "") -> Item:
    """Return the item for one path; ``owner``: its Debian package."""
    entry = image.files.get(path)
    layer = image.names[entry.layer] if entry else ""
    if path.startswith(_UNITS):
        return Item("service", path.rsplit("/", 1)[-1], f"{difference} (/{path})", owner, layer)
    return Item("file", "/" if path == "." else f"/{path}", difference, owner, layer)
