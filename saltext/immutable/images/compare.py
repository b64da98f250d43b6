"""Compare two images of a builder: files, and enabled and masked units."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saltext.immutable.host import Host
from saltext.immutable.images import verify
from saltext.immutable.images.stack import Entry, merged

_MAX_LISTED = 200
"""Files that are listed for each kind of change, the largest first. All are counted."""
_WANTED = re.compile(r"(?:etc|usr/lib)/systemd/(?:system|user)/[^/]+\.(?:wants|requires)/([^/]+)")
_MASKED = re.compile(r"(?:etc|usr/lib)/systemd/(?:system|user)/([^/]+)")
Files = Mapping[str, Entry]


def compare(host: Host, old: str, new: str) -> dict[str, Any]:
    """Return how image ``new`` differs from ``old``: files and services."""
    before, after = (visible_files(host, digest) for digest in (old, new))
    return {"files": files(before, after), "services": services(before, after)}


def visible_files(host: Host, digest: str) -> Files:
    """Return the files that a machine of an image sees, without those of the seal layer."""
    return files_of(host, verify.definition(host, digest)["layers"])


def files_of(host: Host, stack: Sequence[str]) -> Files:
    """Return the merged files of layers, the root first."""
    return files_in(manifests(host, stack))


def files_in(texts: Iterable[bytes], only: re.Pattern[bytes] | None = None) -> Files:
    """Return the merged files of manifests, the root's first. ``only``: those whose lines match."""
    return merged(
        [json.loads(line) for line in text.splitlines() if only is None or only.search(line)] for text in texts
    )


def manifests(host: Host, stack: Sequence[str]) -> Iterator[bytes]:
    """Yield the manifest of each layer, as it is stored."""
    for layer in stack:
        yield gzip.decompress((host.layers / layer / "manifest.gz").read_bytes())


def files(old: Files, new: Files) -> dict[str, Any]:
    """Return the files that were added, removed and changed: count, bytes of difference, and the largest by path.

    A different time is no change, and directories are listed only where their own metadata changed.
    """
    shared = [path for path in set(old) & set(new) if _comparable(old[path]) != _comparable(new[path])]
    changes = {
        "added": {path: new[path].size for path in set(new) - set(old) if new[path].kind != "dir"},
        "removed": {path: -old[path].size for path in set(old) - set(new) if old[path].kind != "dir"},
        "changed": {path: new[path].size - old[path].size for path in shared},
    }
    return {kind: _summary(sizes) for kind, sizes in changes.items() if sizes}


def _comparable(entry: Entry) -> tuple[object, ...]:
    return (entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.content, entry.xattrs)


def _summary(sizes: Mapping[str, int]) -> dict[str, Any]:
    largest = sorted(sizes, key=lambda path: (-abs(sizes[path]), path))[:_MAX_LISTED]
    listed = {f"/{path}": sizes[path] for path in sorted(largest)}
    return {"count": len(sizes), "bytes": sum(sizes.values()), "largest" if len(sizes) > _MAX_LISTED else "all": listed}


def services(old: Files, new: Files) -> dict[str, list[str]]:
    """Return the units that are enabled or masked in one of the two images only."""
    changes: dict[str, list[str]] = {}
    for state, units in (("enabled", enabled), ("masked", masked)):
        before, after = units(old), units(new)
        changes |= {state: sorted(after - before), f"no longer {state}": sorted(before - after)}
    return {state: names for state, names in changes.items() if names}


def enabled(found: Files) -> set[str]:
    """Return the units that another unit wants or requires by a link, without the masked ones."""
    links = (_WANTED.fullmatch(path) for path, entry in found.items() if entry.kind == "link")
    return {link[1] for link in links if link} - masked(found)


def masked(found: Files) -> set[str]:
    """Return the masked units: links to /dev/null."""
    empty = (path for path, entry in found.items() if entry.kind == "link" and entry.content == "/dev/null")
    return {link[1] for link in map(_MASKED.fullmatch, empty) if link}
