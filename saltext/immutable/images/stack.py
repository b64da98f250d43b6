"""What a stack of layers shows, by what their manifests say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_OPAQUE = "trusted.overlay.opaque"


class Entry(NamedTuple):
    """One file, as a manifest has it or as it is."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    content: Any
    """Of a file its hash, of a link its target, of a node its device; None: not known yet."""
    xattrs: Any
    """Names to values in hex, or None where there are none."""
    layer: int = 0


def merged(layers: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, Entry]:
    """Return what a stack of layers shows, the root first: path -> entry. ``layers``: lines of manifests."""
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
    place = (line["mode"], line["uid"], line["gid"], line["mtime"], line.get("size", 0))
    return Entry(line["type"], *place, content, xattrs, layer)


def _without(found: Mapping[str, Entry], hidden: Collection[str]) -> dict[str, Entry]:
    """Drop what is below paths that a layer above hides."""
    return {path: entry for path, entry in found.items() if not any(above in hidden for above in parents(path))}


def parents(path: str) -> Iterator[str]:
    """Yield the folders that a path is in, the nearest first; ``.``, the root, is not among them."""
    while (cut := path.rfind("/")) > 0:
        path = path[:cut]
        yield path
