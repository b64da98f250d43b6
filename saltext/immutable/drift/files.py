"""The files of a machine against those of its image."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from saltext.immutable.drift import tree
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
"""What is below is told as a service."""


@dataclass(frozen=True)
class Differences:
    """The files that are not as the image says."""

    found: Mapping[str, str]
    """Path to what is different."""
    count: int
    """How many files were looked at."""

    def __contains__(self, path: str) -> bool:
        return path in self.found


def differences(root: str, image: Image, mutable: Mutable, mounts: Collection[str], full: bool = False) -> Differences:
    """Compare all files below ``root`` but what is ``mutable``; what a mount hides is not compared."""
    left = dict(image.files)
    found: dict[str, str] = {}
    count = 0
    for path, entry in tree.walk(root, mutable.closes, mounts):
        count += 1
        expected = left.pop(path, None)
        said = _said(root, path, expected, entry, path in image.own, full)
        if said and (is_never_right(expected, entry) or not mutable.hides(path)):
            found[path] = said
    found.update((path, "removed") for path in _removed(left, mutable, mounts))
    return Differences(found, count)


def is_never_right(expected: Entry | None, entry: Entry) -> bool:
    """Tell of what no mutable path excuses: a program that gives its user more rights, a folder that is none now."""
    if expected is not None and expected.kind == "dir" and entry.kind != "dir":
        return True
    rights = entry.mode & (stat.S_ISUID | stat.S_ISGID) or "security.capability" in (entry.xattrs or ())
    return entry.kind == "file" and bool(rights)


def _said(root: str, path: str, expected: Entry | None, entry: Entry, own: bool, full: bool) -> str:
    if expected is not None:
        changes = tree.changes(expected, entry, lambda: tree.sha256(os.path.join(root, path)), full)
        return f"changed: {'; '.join(changes)}" if changes else ""
    if not own:
        return f"added: {entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"
    # Its content is proved otherwise; who else may write it could forge it while we look.
    safe = entry.kind in ("dir", "file") and entry.uid == 0 and not entry.mode & 0o022
    return "" if safe else f"changed: {entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"


def _removed(left: Mapping[str, Entry], mutable: Mutable, mounts: Collection[str]) -> Iterator[str]:
    """Of a folder that is gone, only the folder is told."""
    told: set[str] = set()
    for path in sorted(left):
        above = (path, *parents(path))
        known = any(each in told or each in mounts for each in above) or left[path].kind == tree.MOUNT
        if not known and not mutable.hides(path):
            told.add(path)
            yield path


def item(path: str, said: str, image: Image, owner: str = "") -> Item:
    """Return what is told of one path."""
    entry = image.files.get(path)
    layer = image.names[entry.layer] if entry else ""
    if path.startswith(_UNITS):
        return Item("service", path.rsplit("/", 1)[-1], f"{said} (/{path})", owner, layer)
    return Item("file", "/" if path == "." else f"/{path}", said, owner, layer)
