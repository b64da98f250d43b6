"""What nothing needs any more on a builder: images in no book, layers, keys, caches, what killed work left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saltext.immutable.builder.commands import sweep
from saltext.immutable.builder.sources import downloads
from saltext.immutable.host import Host
from saltext.immutable.images import layers
from saltext.immutable.machines import images, overlay
from saltext.immutable.machines import machine as machines

_TOOLCHAIN = "toolchain"
"""The cache that is of no recipe."""


def image_users(host: Host) -> dict[str, list[str]]:
    """Return who uses images on this host, by digest: machines, and mounts that are no machine's."""
    known, mounted = machines.machines(host), overlay.mounted()
    found: dict[str, list[str]] = {}
    for digest in _image_folders(host):
        seal = images.seal_link(digest)
        users = [f"machine {each.minion_id}" for each in known if seal in each.lower]
        users += ["a mount"] if seal in mounted and not users else []
        if users:
            found[digest] = users
    return found


def collect(
    host: Host,
    known: Sequence[str],
    suites: Sequence[str],
    bake_ids: Sequence[str],
    test: bool = False,
    tarballs: Sequence[str] = (),
) -> dict[str, Any]:
    """Remove what nothing needs, and return it: images, layers, caches, leftovers, each with its bytes.

    ``known``: digests of the images to keep. ``suites``, ``bake_ids`` and ``tarballs`` (by sha256): those that recipes
    have; the caches of others go. No bake may be under way: the layers that it has found so far nothing else needs.
    """
    host.prepare()
    left = {} if test else {f"tmp/{name}": 0 for name in sweep(host)}
    with host.lock("layers"):
        users = image_users(host)
        gone = [digest for digest in _image_folders(host) if digest not in known and digest not in users]
        unneeded = _unneeded_layers(host, gone)
        found = {
            "images": gone,
            "layers": {digest: _about(host, digest) for digest in unneeded},
            "caches": _bytes(host, _caches(host, suites, bake_ids, tarballs)),
            "leftovers": left | _bytes(host, _leftovers(host)),
        }
        if not test:
            _remove(host, gone, unneeded, [host.root / path for path in (*found["caches"], *found["leftovers"])])
    host.remove_discarded()
    return found


def _remove(host: Host, gone: Sequence[str], unneeded: Sequence[str], places: Sequence[Path]) -> None:
    for digest in gone:
        (host.l / images.seal_link(digest)).unlink(missing_ok=True)
        host.set_aside(host.images / digest)
    layers.set_aside(host, unneeded)
    for place in places:
        host.set_aside(place)
    _remove_dangling(host)


def _remove_dangling(host: Host) -> None:
    """Remove keys and links that lead nowhere, and files without a name yet: a kill may have come in between."""
    there = {folder.name for folder in host.layers.iterdir()}
    for folder in (host.keys, *host.images.iterdir()):
        for unfinished in folder.glob(".*"):
            unfinished.unlink()
    for key in host.keys.iterdir():
        if key.read_text().partition("\n")[0] not in there:
            key.unlink()
    for link in host.l.iterdir():
        if not link.exists():
            link.unlink()


def _image_folders(host: Host) -> list[str]:
    """Return the images of this host, also those that were never finished."""
    return sorted(folder.name for folder in host.images.iterdir())


def _unneeded_layers(host: Host, but_images: Sequence[str]) -> list[str]:
    """Return the layers that no image but these, no machine and no mount needs, children before their parents."""
    needed = layers.needed(host, but_images)
    found = [layer.name for layer in host.layers.iterdir() if overlay.short(layer.name) not in needed]
    return sorted(found, key=lambda digest: (_created(host, digest), digest))


def _created(host: Host, digest: str) -> float:
    return (host.layers / digest).stat().st_mtime


def _about(host: Host, digest: str) -> dict[str, Any]:
    layer = json.loads((host.layers / digest / "layer.json").read_text())
    return {name: layer.get(name) for name in ("what", "size")}


def _caches(host: Host, *recipes: Sequence[str]) -> Iterator[Path]:
    suites, bake_ids, tarballs = recipes
    for folder, wanted in (("debian", suites), ("apt", [*bake_ids, _TOOLCHAIN]), (downloads.CACHE, tarballs)):
        place = host.cache / folder
        yield from (one for one in sorted(place.iterdir()) if one.name not in wanted) if place.is_dir() else ()


def _leftovers(host: Host) -> Iterator[Path]:
    """Yield the keys of bakes that were killed: nobody bakes, so nobody has one."""
    yield from sorted(host.pki.iterdir())


def _bytes(host: Host, places: Iterator[Path]) -> dict[str, int]:
    return {str(place.relative_to(host.root)): _size(place) for place in places}


def _size(place: Path) -> int:
    if place.is_file():
        return place.lstat().st_size
    return sum(os.lstat(Path(folder, name)).st_size for folder, _, files in os.walk(place) for name in files)
