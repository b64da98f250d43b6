"""What an adopted machine is compared with: itself, as it was when it was sealed."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.drift import files, mounts, tree
from saltext.immutable.drift.image import ADOPTED
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.host import remove, write
from saltext.immutable.images import manifest, proof
from saltext.immutable.images.stack import Entry


def baseline(recipe: str, policy: Mapping[str, Any], root: str = "/") -> str:
    """Write down all that is on this machine now, and return the digest that proves it: as of an image.

    Left out: what is mutable by ``policy`` or by default, and file systems of the network.
    """
    mutable = Mutable([*policy.get("mutable", ()), *policy.get("writable", ())])
    text = "".join(manifest.canonical(line) + "\n" for line in _lines(root, mutable)).encode()
    layer = hashlib.sha256(text).hexdigest()
    order = {"recipe": recipe, "layers": [layer], "read_only": False, "grains": {}, "policy": policy}
    place = Path(root, ADOPTED)
    _clear(place)
    _put(place, proof.MANIFESTS, f"{layer}.gz").write_bytes(gzip.compress(text, 6, mtime=0))
    write(_put(place, proof.ORDER), manifest.canonical(order))
    write(_put(place, proof.NAMES), manifest.canonical({layer: "this machine when it was sealed"}))
    for path in proof.COPIED:
        if Path(root, path).is_file():
            proof.copy(Path(root, path), _put(place, proof.REFERENCE, path))
    return manifest.image_digest(order)


def _put(place: Path, *parts: str) -> Path:
    """Return where a part of the proof belongs, with the folders for it made."""
    found = place.joinpath(os.path.relpath(parts[0], proof.FOLDER), *parts[1:])
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def _clear(place: Path) -> None:
    """Remove what an earlier seal left."""
    for path in (proof.ORDER, proof.NAMES, proof.MANIFESTS, proof.REFERENCE):
        remove(place / os.path.relpath(path, proof.FOLDER))


def _lines(root: str, mutable: Mutable) -> Iterator[dict[str, Any]]:
    here = mounts.look("/proc") if root == "/" else []
    points = {mount.point for mount in here}
    left_out = {point.strip("/") for point in points - mounts.entered(here, points)}
    for path, entry in sorted(tree.walk(root, mutable.closes, left_out)):
        if not mutable.hides(path) or files.is_never_right(None, entry):
            yield _line(root, path, entry, f"/{path}" in points)
    for path in sorted(point for point in left_out - {""} if not mutable.hides(point)):
        yield {"path": path, "type": tree.MOUNT, "mode": 0, "uid": 0, "gid": 0, "mtime": 0}


def _line(root: str, path: str, entry: Entry, is_mount: bool) -> dict[str, Any]:
    """Return a line as `manifest.entries` has it."""
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
