"""What an image carries so that a machine can be compared with it: beside the seal, in the layer above the others.

The image's digest is the hash of its order, the order names the layers, and a layer's digest is the hash of its
manifest. So whoever knows the digest needs to believe none of these files, which lie in the image as::

    /etc/immutable/image.json               what the image's digest is the hash of
    /etc/immutable/manifest/<digest>.gz     one for each layer
    /etc/immutable/layers.json              what each layer is called, for people; proves nothing
    /etc/immutable/reference/<path>         the image's own copy of a file whose changes are told line by line
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saltext.immutable.guard import launch
from saltext.immutable.host import Host, write
from saltext.immutable.images import manifest
from saltext.immutable.machines import overlay

_GRAINS = "/etc/salt/minion.d/zz-grains.conf"
FOLDER = "etc/immutable"
ORDER = f"{FOLDER}/image.json"
MANIFESTS = f"{FOLDER}/manifest"
NAMES = f"{FOLDER}/layers.json"
REFERENCE = f"{FOLDER}/reference"
COPIED = ("etc/group", "etc/passwd", "etc/shadow", "var/lib/dpkg/status")
"""Each is believed as far as its manifest has its hash."""


def above(order: Mapping[str, Any]) -> dict[str, str]:
    """Return the files that follow from an image's order alone, by path; they are in no layer."""
    files = {}
    if order["grains"]:
        files[_GRAINS] = json.dumps({"grains": order["grains"]}, indent=1)
    if drop_in := launch.drop_in(order["policy"]):
        files[launch.DROP_IN] = drop_in
    return files


def add(host: Host, tree: Path, order: Mapping[str, Any]) -> None:
    """Put the proof of an image (``order``: what its digest is the hash of, and more) into its uppermost layer."""
    (tree / MANIFESTS).mkdir(parents=True, exist_ok=True)
    for digest in order["layers"]:
        _link(host.layers / digest / "manifest.gz", tree / MANIFESTS / f"{digest}.gz")
    write(tree / ORDER, manifest.canonical(manifest.of_image(order)))
    about = {digest: json.loads((host.layers / digest / "layer.json").read_text()) for digest in order["layers"]}
    write(tree / NAMES, manifest.canonical({digest: layer["what"] for digest, layer in about.items()}))
    stack = tuple(map(overlay.short, order["layers"]))
    for path in COPIED:
        if file := overlay.top_file(host.l, stack, path):
            copy(file, tree / REFERENCE / path)


def _link(source: Path, target: Path) -> None:
    """Have a file a second time without its bytes."""
    target.unlink(missing_ok=True)
    os.link(source, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file for root's eyes only: one of them is /etc/shadow."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


def like_below(host: Host, tree: Path, layers: Sequence[str]) -> None:
    """Give the folders of the uppermost layer the mode and owner that they have below: it would hide them."""
    for folder in _folders(tree):
        name = folder.relative_to(tree)
        found = (host.layers / digest / "fs" / name for digest in reversed(layers))
        below = next((place for place in found if place.is_dir() and not place.is_symlink()), None)
        if below is not None:
            _dress(folder, below)


def _dress(folder: Path, below: Path) -> None:
    info = below.stat()
    os.chown(folder, info.st_uid, info.st_gid)
    folder.chmod(stat.S_IMODE(info.st_mode))
    for name in os.listxattr(below):
        if not name.startswith("trusted.overlay."):
            os.setxattr(folder, name, os.getxattr(below, name))


def _folders(tree: Path) -> Iterator[Path]:
    """Deepest first: a folder's own time changes with what is made in it."""
    for folder, _, _ in os.walk(tree, topdown=False):
        yield Path(folder)
