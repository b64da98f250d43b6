"""The files: as manifests say, as they are, and the difference of the two."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from saltext.immutable.images.stack import Entry

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
MOUNT = "mount"
"""In the manifest of an adopted machine: the top folder of another file system."""


def walk(root: str, closes: Callable[[str], bool], mounts: Collection[str]) -> Iterator[tuple[str, Entry]]:
    """Yield what is below ``root``, itself as ``.``; never follow a link, never raise for what goes away meanwhile.

    Not looked into: folders that ``closes`` says so of, and ``mounts``, which are not yielded either.
    """
    yield ".", _lstat(root, os.lstat(root))
    base, folders = root.rstrip("/"), [""]
    while folders:
        folder = folders.pop()
        for name, info in _listed(f"{base}/{folder}"):
            path = folder + name
            if path in mounts:
                continue
            with suppress(FileNotFoundError):
                entry = _lstat(f"{base}/{path}", info)
                yield path, entry
                if entry.kind == "dir" and not closes(path):
                    folders.append(f"{path}/")


def _listed(place: str) -> Iterator[tuple[str, os.stat_result]]:
    with suppress(OSError), os.scandir(place) as listing:
        for each in listing:
            with suppress(FileNotFoundError):
                yield each.name, each.stat(follow_symlinks=False)


def _lstat(place: str, info: os.stat_result) -> Entry:
    mode = info.st_mode
    kind = _KINDS[stat.S_IFMT(mode)]
    content: Any = None
    if kind == "link":
        content = os.readlink(place)
    elif kind not in ("dir", "file"):
        content = [os.major(info.st_rdev), os.minor(info.st_rdev)]
    size = info.st_size if kind == "file" else 0
    times = (int(info.st_mtime), size)
    return Entry(kind, stat.S_IMODE(mode), info.st_uid, info.st_gid, *times, content, _xattrs(place))


def _xattrs(place: str) -> dict[str, str] | None:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError:  # a file system that has none
        return None
    own = [name for name in names if not name.startswith("trusted.overlay.")]
    return {name: os.getxattr(place, name, follow_symlinks=False).hex() for name in own} or None


def changes(expected: Entry, found: Entry, read: Callable[[], str | None], full: bool = False) -> list[str]:
    """Return what is different about a file that is there.

    ``read`` returns the hash of what is in it; it is called where metadata cannot tell, or always if ``full``.
    """
    if expected.kind != found.kind and (expected.kind, found.kind) != (MOUNT, "dir"):
        return [f"it is a {found.kind} and was a {expected.kind}"]
    said = []
    if expected.mode != found.mode and expected.kind != "link":
        said.append(f"mode {found.mode:04o}, was {expected.mode:04o}")
    if (expected.uid, expected.gid) != (found.uid, found.gid):
        said.append(f"owner {found.uid}:{found.gid}, was {expected.uid}:{expected.gid}")
    if expected.xattrs != found.xattrs:
        said.append(_xattr_changes(expected.xattrs or {}, found.xattrs or {}))
    moved = full or expected.mtime != found.mtime
    return [*_content_changes(expected, found, read if moved else lambda: expected.content), *said]


def _content_changes(expected: Entry, found: Entry, read: Callable[[], str | None]) -> list[str]:
    if expected.kind == "link" and expected.content != found.content:
        return [f"leads to {found.content}, was {expected.content}"]
    if expected.kind == "file":
        if expected.size != found.size:
            return [f"content ({found.size} bytes, were {expected.size})"]
        now = read()
        if now is None:
            return ["it cannot be read"]
        return [] if now == expected.content else ["content (of the same size)"]
    if expected.kind in ("char", "block") and expected.content != found.content:
        return [f"device {found.content}, was {expected.content}"]
    return []


def _xattr_changes(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"extended attributes: {', '.join(names)}"


def sha256(place: str) -> str | None:
    """Return the hash of a file's content; None if it is gone or cannot be read."""
    digest = hashlib.sha256()
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb", buffering=0) as file, suppress(OSError):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()
    return None
