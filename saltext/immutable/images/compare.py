"""Two images of a builder, file by file, and which units each enables. Pure, but for the manifests."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saltext.immutable.host import Host
from saltext.immutable.images import verify
from saltext.immutable.images.stack import Entry, merged

_MOST = 200
"""Files of each kind of change that are named, the largest first; the others are counted."""
_WANTED = re.compile(r"(?:etc|usr/lib)/systemd/(?:system|user)/[^/]+\.(?:wants|requires)/([^/]+)")
_MASKED = re.compile(r"(?:etc|usr/lib)/systemd/(?:system|user)/([^/]+)")
Files = Mapping[str, Entry]


def compare(host: Host, old: str, new: str) -> dict[str, Any]:
    """Return how image ``new`` differs from ``old``: files and services, each with added, removed and changed."""
    before, after = (shown(host, digest) for digest in (old, new))
    return {"files": files(before, after), "services": services(before, after)}


def shown(host: Host, digest: str) -> Files:
    """Return the files that a machine of an image sees, but for the seal and what lies around it."""
    return merged(_lines(host, verify.order(host, digest)["layers"]))


def _lines(host: Host, stack: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for layer in stack:
        text = gzip.decompress((host.layers / layer / "manifest.gz").read_bytes())
        yield [json.loads(line) for line in text.splitlines()]


def files(old: Files, new: Files) -> dict[str, Any]:
    """Return what was added, removed and changed, each with how many, how many bytes more, and the largest by path.

    A file's time is no change of it, nor is a folder in which another file lies.
    """
    shared = [path for path in set(old) & set(new) if _what(old[path]) != _what(new[path])]
    changes = {
        "added": {path: new[path].size for path in set(new) - set(old) if new[path].kind != "dir"},
        "removed": {path: -old[path].size for path in set(old) - set(new) if old[path].kind != "dir"},
        "changed": {path: new[path].size - old[path].size for path in shared},
    }
    return {what: _summed(sizes) for what, sizes in changes.items() if sizes}


def _what(entry: Entry) -> tuple[object, ...]:
    return (entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.content, entry.xattrs)


def _summed(sizes: Mapping[str, int]) -> dict[str, Any]:
    largest = sorted(sizes, key=lambda path: (-abs(sizes[path]), path))[:_MOST]
    named = {f"/{path}": sizes[path] for path in sorted(largest)}
    return {"count": len(sizes), "bytes": sum(sizes.values()), "largest" if len(sizes) > _MOST else "all": named}


def services(old: Files, new: Files) -> dict[str, list[str]]:
    """Return the units that are enabled, or masked, in one of them only."""
    told: dict[str, list[str]] = {}
    for what, units in (("enabled", enabled), ("masked", masked)):
        before, after = units(old), units(new)
        told |= {what: sorted(after - before), f"no longer {what}": sorted(before - after)}
    return {what: names for what, names in told.items() if names}


def enabled(found: Files) -> set[str]:
    """Return the units that another unit wants or requires by a link."""
    links = (_WANTED.fullmatch(path) for path, entry in found.items() if entry.kind == "link")
    return {link[1] for link in links if link} - masked(found)


def masked(found: Files) -> set[str]:
    """Return the units that lead to nothing."""
    empty = (path for path, entry in found.items() if entry.kind == "link" and entry.content == "/dev/null")
    return {link[1] for link in map(_MASKED.fullmatch, empty) if link}
