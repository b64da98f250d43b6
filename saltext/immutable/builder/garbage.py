"""Garbage collection on a builder: unneeded images, layers, keys and caches, and the leftovers of killed bakes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saltext.immutable.builder.commands import sweep
from saltext.immutable.builder.sources import downloads, oci
from saltext.immutable.host import Host
from saltext.immutable.images import layers
from saltext.immutable.machines import damaged_images, overlay
from saltext.immutable.machines import machine as machines

_TOOLCHAIN = "toolchain"
"""The package cache that belongs to no recipe: the compiler for Python packages without a wheel."""


def image_users(host: Host) -> dict[str, list[str]]:
    """Return what uses each image of this host, by digest: machines, and mounts that belong to no machine."""
    running, mounted = machines.machines(host), overlay.mounted()
    found: dict[str, list[str]] = {}
    for digest in _image_folders(host):
        seal = overlay.seal_name(digest)
        users = [f"machine {each.minion_id}" for each in running if seal in each.lower]
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
    references: Sequence[str] = (),
) -> dict[str, Any]:
    """Remove what nothing needs; return images, layers, caches and leftovers, each with its bytes.

    ``known``: digests of the images to keep. ``suites``, ``bake_ids``, ``tarballs`` (sha256) and ``references``
    (OCI images): those that recipes have; other caches are removed. ``test``: only report. No bake may run: the layers
    that it has found so far are needed by nothing else.
    """
    host.prepare()
    swept = {} if test else {f"tmp/{name}": 0 for name in sweep(host)}
    with host.lock("layers"):
        users = image_users(host)
        removable = [digest for digest in _image_folders(host) if digest not in known and digest not in users]
        unneeded = _unneeded_layers(host, removable)
        found = {
            "images": removable,
            "layers": {digest: _layer_summary(host, digest) for digest in unneeded},
            "caches": _bytes(host, _caches(host, suites, bake_ids, tarballs, references)),
            "leftovers": swept | _bytes(host, _leftovers(host)),
        }
        if not test:
            _remove(host, removable, unneeded, [host.root / path for path in (*found["caches"], *found["leftovers"])])
    host.remove_discarded()
    return found


def _remove(host: Host, images_: Sequence[str], unneeded: Sequence[str], paths: Sequence[Path]) -> None:
    for digest in images_:
        (host.l / overlay.seal_name(digest)).unlink(missing_ok=True)
        host.take_away(host.images / digest)
    layers.take_away(host, unneeded)
    for path in paths:
        host.take_away(path)
    _remove_dangling(host)


def _remove_dangling(host: Host) -> None:
    """Remove keys and links whose target is gone, and temporary files: a kill between two steps leaves them."""
    present = {folder.name for folder in host.layers.iterdir()}
    for folder in (host.keys, host.l, *host.images.iterdir()):
        for unfinished in folder.glob(".*"):
            unfinished.unlink()
    for key in host.keys.iterdir():
        if key.read_text().partition("\n")[0] not in present:
            key.unlink()
    for link in host.l.iterdir():
        if not link.exists():
            link.unlink()


def _image_folders(host: Host) -> list[str]:
    """Return the digests of all images of this host, also of unfinished ones."""
    return sorted(folder.name for folder in host.images.iterdir())


def _unneeded_layers(host: Host, but_images: Sequence[str]) -> list[str]:
    """Return the layers that no image (other than ``but_images``), machine or mount needs, children before parents."""
    needed = layers.needed(host, but_images)
    found = [layer.name for layer in host.layers.iterdir() if overlay.short(layer.name) not in needed]
    return sorted(found, key=lambda digest: (_created(host, digest), digest))


def _created(host: Host, digest: str) -> float:
    return (host.layers / digest).stat().st_mtime


def _layer_summary(host: Host, digest: str) -> dict[str, Any]:
    try:
        layer = json.loads((host.layers / digest / "layer.json").read_text())
        return {name: layer.get(name) for name in ("what", "size")}
    except (AttributeError, OSError, ValueError):
        return {"what": "a damaged layer", "size": 0}


def _caches(host: Host, *recipes: Sequence[str]) -> Iterator[Path]:
    suites, bake_ids, tarballs, references = recipes
    images_ = [oci.cache_name(one) for one in references]
    kept = {"debian": suites, "apt": [*bake_ids, _TOOLCHAIN], downloads.CACHE: tarballs, oci.CACHE: images_}
    for name, needed in kept.items():
        folder = host.cache / name
        yield from (entry for entry in sorted(folder.iterdir()) if entry.name not in needed) if folder.is_dir() else ()


def _leftovers(host: Host) -> Iterator[Path]:
    """Yield the key pairs of bakes that were killed, since no bake runs, and damaged layers that no machine is on."""
    yield from sorted(host.pki.iterdir())
    running = machines.machines(host)
    for folder in damaged_images.list_set_aside(host):
        if not any(damaged_images.runs_on(folder, one.lower, one.born) for one in running):
            yield folder


def _bytes(host: Host, paths: Iterator[Path]) -> dict[str, int]:
    return {str(path.relative_to(host.root)): _size(path) for path in paths}


def _size(path: Path) -> int:
    if path.is_file():
        return _used(path)
    return sum(_used(Path(folder, name)) for folder, _, files in os.walk(path) for name in files)


def _used(path: Path) -> int:
    """Return the bytes of a file that removing it frees: the disks of virtual machines are mostly holes."""
    found = path.lstat()
    return min(found.st_size, found.st_blocks * 512)
