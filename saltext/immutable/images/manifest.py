"""The manifest of a layer: a canonical list of its files, one a line, sorted by path.

Its hash is the layer's digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def entries(root: Path, closed: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield every file below ``root``, including ``root``, sorted by path.

    The content of ``closed`` folders is left out.

    Each has ``path`` (``.`` is the root), ``type`` (dir, file, link, whiteout, or char, block, fifo, socket), ``mode``,
    ``uid``, ``gid``, ``mtime`` (seconds), and where they apply ``size`` (bytes), ``sha256``, ``target``, ``device``,
    ``xattrs`` (hex), ``same_as`` (path of the first hard link).
    """
    seen: dict[tuple[int, int], str] = {}
    base = str(root).rstrip("/")
    for path in _paths(root, closed):
        file = f"{base}/{path}"
        info = os.lstat(file)
        entry = _entry(path, file, info)
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
            first = seen.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                entry["same_as"] = first
        yield entry


def _paths(root: Path, closed: Collection[str]) -> list[str]:
    found, start = ["."], len(str(root).rstrip("/")) + 1
    for folder, folders, files in os.walk(root):
        below = folder[start:]
        found += [f"{below}/{name}" if below else name for name in (*folders, *files)]
        folders[:] = [name for name in folders if f"{below}/{name}".lstrip("/") not in closed] if closed else folders
    return sorted(found)


def _entry(path: str, file: str, info: os.stat_result) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": path,
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "mtime": int(info.st_mtime),
    }
    if xattrs := {name: os.getxattr(file, name, follow_symlinks=False).hex() for name in _xattrs(file)}:
        entry["xattrs"] = xattrs
    return {**entry, **_kind(file, info)}


def _xattrs(path: str) -> list[str]:
    """Return the names of the extended attributes that are content. Overlay's own are not, except that for opaque."""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [name for name in names if not name.startswith("trusted.overlay.") or name.endswith(".opaque")]


def _kind(path: str, info: os.stat_result) -> dict[str, Any]:
    mode = info.st_mode
    if stat.S_ISDIR(mode):
        return {"type": "dir"}
    if stat.S_ISLNK(mode):
        return {"type": "link", "target": os.readlink(path)}
    if stat.S_ISREG(mode):
        return {"type": "file", "size": info.st_size, "sha256": sha256(path)}
    if stat.S_ISCHR(mode) and info.st_rdev == 0:
        return {"type": "whiteout"}
    kinds = {stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
    return {"type": kinds[stat.S_IFMT(mode)], "device": [os.major(info.st_rdev), os.minor(info.st_rdev)]}


def sha256(path: str) -> str:
    """Return the hash of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        try:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except OSError as err:  # the disk, or fs-verity, found a damaged block
            err.filename = path
            raise
    return digest.hexdigest()


def lines(root: Path) -> list[str]:
    """Return the manifest of a tree: canonical JSON objects, one a line."""
    return as_lines(entries(root))


def as_lines(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return entries as lines of a manifest."""
    return [canonical(entry) + "\n" for entry in found]


def image_digest(order: Mapping[str, Any]) -> str:
    """Return the digest of an image: the hash of its definition."""
    return digest(image_definition(order))


def image_definition(order: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an image's metadata that its digest covers: recipe, layers, read_only, grains, policy."""
    return {name: order[name] for name in ("recipe", "layers", "read_only", "grains", "policy")}


def canonical(data: Any) -> str:
    """Return data as JSON; equal data give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def digest(data: Any) -> str:
    """Return the hash of data that JSON can hold."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()
