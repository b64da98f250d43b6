"""Walk a tree of files, and compare one file with its line in a manifest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from saltext.immutable import kernel
from saltext.immutable.drift.paths import Read
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


def walk(
    root: str, to_read: Callable[[str], Read], mounts: Collection[str], searched: Iterable[str] = ()
) -> Iterator[tuple[str, Entry]]:
    """Yield path and entry of all below ``root``, which is ``.`` itself.

    Links are not followed; a file that is removed meanwhile raises nothing. ``to_read``: tells what is yielded of a
    folder (``rights``: see `has_rights`), ``searched``: further folders of that kind; ``mounts``: paths that are
    neither yielded nor read.
    """
    yield ".", _lstat(root, os.lstat(root))
    base, folders = root.rstrip("/"), [("", False), *((f"{path}/", True) for path in searched)]
    while folders:
        folder, is_searched = folders.pop()
        for name, info in _listed(f"{base}/{folder}"):
            path = folder + name
            if path in mounts:
                continue
            with suppress(FileNotFoundError):
                if not is_searched or has_rights(f"{base}/{path}", info):
                    yield path, _lstat(f"{base}/{path}", info)
                if stat.S_ISDIR(info.st_mode) and (read := to_read(path)) != "nothing":
                    folders.append((f"{path}/", is_searched or read == "rights"))


def has_rights(path: str, info: os.stat_result) -> bool:
    """Tell whether a file is a device, or a program that gives who runs it more rights than they have.

    Device 0:0 is none: systemd mounts it over what a unit may not reach.
    """
    mode = info.st_mode
    if not stat.S_ISREG(mode):
        return (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and info.st_rdev != 0
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    return bool(mode & 0o111) and "security.capability" in _names(path)


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
    return Entry(kind, stat.S_IMODE(mode), info.st_uid, info.st_gid, *times, content, _xattrs(path) or None)


def _xattrs(path: str) -> dict[str, str]:
    """Return the extended attributes of a file, and the flags that keep it from being changed in the same form."""
    own = [name for name in _names(path) if not name.startswith("trusted.overlay.")]
    values = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in own}
    return values | dict.fromkeys(kernel.flags(path), "01")


def _names(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:  # this file system has no extended attributes
        return []


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
