"""The baseline of an adopted machine: a record of all its files at the time when it was sealed."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.drift import files, tree
from saltext.immutable.drift.image import ADOPTED
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.drift.running import mounts
from saltext.immutable.host import remove, write
from saltext.immutable.images import manifest, seal_layer
from saltext.immutable.images.stack import Entry


def baseline(recipe: str, policy: Mapping[str, Any], root: str = "/") -> str:
    """Record all files of the machine at ``root`` in /var/lib/immutable, and return a digest like that of an image.

    Left out: paths that are mutable by ``policy`` or by default, and network file systems.
    """
    mutable = Mutable([*policy.get("mutable", ()), *policy.get("writable", ())])
    text = "".join(manifest.canonical(line) + "\n" for line in _lines(root, mutable)).encode()
    layer = hashlib.sha256(text).hexdigest()
    order = {"recipe": recipe, "layers": [layer], "read_only": False, "grains": {}, "policy": policy}
    folder = Path(root, ADOPTED)
    _clear(folder)
    _prepared(folder, seal_layer.MANIFESTS, f"{layer}.gz").write_bytes(gzip.compress(text, 6, mtime=0))
    write(_prepared(folder, seal_layer.DEFINITION), manifest.canonical(order))
    write(_prepared(folder, seal_layer.NAMES), manifest.canonical({layer: "this machine when it was sealed"}))
    for path in seal_layer.COPIED:
        if Path(root, path).is_file():
            seal_layer.copy_private(Path(root, path), _prepared(folder, seal_layer.REFERENCE, path))
    return manifest.image_digest(order)


def _prepared(folder: Path, *parts: str) -> Path:
    """Return where a part of the proof belongs, after making the folders for it."""
    path = folder.joinpath(os.path.relpath(parts[0], seal_layer.FOLDER), *parts[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _clear(folder: Path) -> None:
    """Remove the baseline of an earlier seal."""
    for path in (seal_layer.DEFINITION, seal_layer.NAMES, seal_layer.MANIFESTS, seal_layer.REFERENCE):
        remove(folder / os.path.relpath(path, seal_layer.FOLDER))


def _lines(root: str, mutable: Mutable) -> Iterator[dict[str, Any]]:
    mounted = mounts.scan("/proc") if root == "/" else []
    points = {mount.point for mount in mounted}
    left_out = {point.strip("/") for point in points - mounts.to_compare(mounted, points)}
    for path, entry in sorted(tree.walk(root, mutable.to_read, left_out)):
        if not mutable.may_differ(path) or files.is_always_drift(None, entry):
            yield _line(root, path, entry, f"/{path}" in points)
    for path in sorted(point for point in left_out - {""} if not mutable.may_differ(point)):
        yield {"path": path, "type": tree.MOUNT, "mode": 0, "uid": 0, "gid": 0, "mtime": 0}


def _line(root: str, path: str, entry: Entry, is_mount: bool) -> dict[str, Any]:
    """Return a manifest line in the form of `manifest.entries`."""
    kind = tree.MOUNT if is_mount and entry.kind == "dir" else entry.kind
    line: dict[str, Any] = {"path": path, "type": kind, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid}
    line["mtime"] = entry.mtime
    if entry.xattrs:
        line["xattrs"] = entry.xattrs
    if entry.kind == "file":
        return {**line, "size": entry.size, "sha256": tree.sha256(os.path.join(root, path))}
    if entry.kind == "link":
        return {**line, "target": entry.content}
    return line if entry.content is None else {**line, "device": entry.content}
