"""The merged files of a stack of layers, computed from their manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_OPAQUE = "trusted.overlay.opaque"


class Entry(NamedTuple):
    """One file, from a manifest or from the disk."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    content: Any
    """Hash of a file, target of a link, numbers of a device; None where it is not known yet."""
    xattrs: Any
    """Names -> values in hex, or None where there are none."""
    layer: int = 0


def merged(layers: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, Entry]:
    """Return the merged files of a stack of layers: path -> entry. ``layers``: lines of their manifests, root first."""
    found: dict[str, Entry] = {}
    for number, lines in enumerate(layers):
        upper: dict[str, Entry] = {}
        hidden = []
        for line in lines:
            path, kind = line["path"], line["type"]
            below = found.get(path)
            opaque = kind == "dir" and _OPAQUE in line.get("xattrs", ())
            if below is not None and below.kind == "dir" and (kind != "dir" or opaque):
                hidden.append(path)
            if kind != "whiteout":
                upper[path] = _entry(line, number)
            else:
                found.pop(path, None)
        if hidden:
            found = _without(found, frozenset(hidden))
        found.update(upper)
    return found


def _entry(line: Mapping[str, Any], layer: int) -> Entry:
    content = line.get("sha256") or line.get("target") or line.get("device")
    xattrs = {name: value for name, value in line.get("xattrs", {}).items() if name != _OPAQUE} or None
    metadata = (line["mode"], line["uid"], line["gid"], line["mtime"], line.get("size", 0))
    return Entry(line["type"], *metadata, content, xattrs, layer)


def _without(found: Mapping[str, Entry], hidden: Collection[str]) -> dict[str, Entry]:
    """Return the files without those below the paths ``hidden``."""
    return {path: entry for path, entry in found.items() if not any(above in hidden for above in parents(path))}


def parents(path: str) -> Iterator[str]:
    """Yield the folders above a path, the nearest first, without the root (``.``)."""
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path
