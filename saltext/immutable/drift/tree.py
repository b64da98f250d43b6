"""Walk a tree of files, and compare one file with its line in a manifest."""

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
"""The kind of a mount point in the manifest of an adopted machine."""


def walk(root: str, skips: Callable[[str], bool], mounts: Collection[str]) -> Iterator[tuple[str, Entry]]:
    """Yield path and entry of all below ``root``, which is ``.`` itself.

    Links are not followed; a file that is removed meanwhile raises nothing. ``skips``: tells which folders not to read;
    ``mounts``: paths that are neither yielded nor read.
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
                if entry.kind == "dir" and not skips(path):
                    folders.append(f"{path}/")


def _listed(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with suppress(OSError), os.scandir(folder) as listing:
        for each in listing:
            with suppress(FileNotFoundError):
                yield each.name, each.stat(follow_symlinks=False)


def _lstat(path: str, info: os.stat_result) -> Entry:
    mode = info.st_mode
    kind = _KINDS[stat.S_IFMT(mode)]
    content: Any = None
    if kind == "link":
        content = os.readlink(path)
    elif kind not in ("dir", "file"):
        content = [os.major(info.st_rdev), os.minor(info.st_rdev)]
    size = info.st_size if kind == "file" else 0
    times = (int(info.st_mtime), size)
    return Entry(kind, stat.S_IMODE(mode), info.st_uid, info.st_gid, *times, content, _xattrs(path))


def _xattrs(path: str) -> dict[str, str] | None:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # this file system has no extended attributes
        return None
    own = [name for name in names if not name.startswith("trusted.overlay.")]
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in own} or None


def changes(expected: Entry, found: Entry, read: Callable[[], str | None], full: bool = False) -> list[str]:
    """Return what differs about a file that exists.

    ``read`` returns the hash of its content; it is called if the time differs, or always if ``full``.
    """
    if expected.kind != found.kind and (expected.kind, found.kind) != (MOUNT, "dir"):
        return [f"it is a {found.kind} and was a {expected.kind}"]
    differing = []
    if expected.mode != found.mode and expected.kind != "link":
        differing.append(f"mode {found.mode:04o}, was {expected.mode:04o}")
    if (expected.uid, expected.gid) != (found.uid, found.gid):
        differing.append(f"owner {found.uid}:{found.gid}, was {expected.uid}:{expected.gid}")
    if expected.xattrs != found.xattrs:
        differing.append(_xattr_changes(expected.xattrs or {}, found.xattrs or {}))
    must_read = full or expected.mtime != found.mtime
    return [*_content_changes(expected, found, read if must_read else lambda: expected.content), *differing]


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


def sha256(path: str) -> str | None:
    """Return the hash of a file's content; None if it is gone or cannot be read."""
    digest = hashlib.sha256()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb", buffering=0) as file, suppress(OSError):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()
    return None
