"""The seal layer, on top of the layers of an image: what a machine needs to compare itself with its image.

The image's digest is the hash of its definition, the definition names the layers, and a layer's digest is the hash of
its manifest. So a reader who knows the digest can verify all of these files, which are in the image as::

    /etc/immutable/seal.json                the seal, written by the builder
    /etc/immutable/image.json               the image's definition
    /etc/immutable/manifest/<digest>.gz     the manifest of each layer
    /etc/immutable/layers.json              the name of each layer, for messages; not verified
    /etc/immutable/reference/<path>         the image's copy of a file whose changes are reported line by line
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
from saltext.immutable.images import manifest, noexec_mounts, unit_drop_ins, verity
from saltext.immutable.machines import overlay

_GRAINS = "/etc/salt/minion.d/zz-grains.conf"
FOLDER = "etc/immutable"
DEFINITION = f"{FOLDER}/image.json"
MANIFESTS = f"{FOLDER}/manifest"
NAMES = f"{FOLDER}/layers.json"
REFERENCE = f"{FOLDER}/reference"
COPIED = ("etc/group", "etc/passwd", "etc/shadow", "var/lib/dpkg/status")
"""Files with a copy; the manifest has the hash that the copy must have."""


def derived_files(order: Mapping[str, Any]) -> dict[str, str]:
    """Return the config files that follow from an image's definition: path -> text. They are in no layer."""
    files = {}
    if order["grains"]:
        files[_GRAINS] = json.dumps({"grains": order["grains"]}, indent=1)
    if drop_in := launch.drop_in(order["policy"]):
        files[launch.DROP_IN] = drop_in
    if drop_in := noexec_mounts.drop_in(order["policy"], order["read_only"]):
        files[noexec_mounts.DROP_IN] = drop_in
    files |= unit_drop_ins.drop_ins(order["policy"])
    return files


def add_manifests(host: Host, tree: Path, order: Mapping[str, Any]) -> None:
    """Add definition, manifests and copies, the last files of a seal layer, to its tree.

    ``order``: the image's metadata.
    """
    (tree / MANIFESTS).mkdir(parents=True, exist_ok=True)
    write(tree / DEFINITION, manifest.canonical(manifest.image_definition(order)))
    layers = {digest: json.loads((host.layers / digest / "layer.json").read_text()) for digest in order["layers"]}
    write(tree / NAMES, manifest.canonical({digest: layer["what"] for digest, layer in layers.items()}))
    stack = tuple(map(overlay.short, order["layers"]))
    for path in COPIED:
        if file := overlay.top_file(host.l, stack, path):
            copy_private(file, tree / REFERENCE / path)
    verity.enable(tree)
    for digest in order["layers"]:  # other images have these files too: they have fs-verity since their layer's commit
        _link(host.layers / digest / "manifest.gz", tree / MANIFESTS / f"{digest}.gz")


def _link(source: Path, target: Path) -> None:
    """Make a hard link, which takes no space."""
    target.unlink(missing_ok=True)
    os.link(source, target)


def copy_private(source: Path, target: Path) -> None:
    """Copy a file so that only root can read the copy: one of the files is /etc/shadow."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


def copy_folder_metadata(host: Host, tree: Path, layers: Sequence[str]) -> None:
    """Give the folders of a seal layer owner, mode and attributes of the same folders below, which they replace."""
    for folder in _folders(tree):
        name = folder.relative_to(tree)
        found = (host.layers / digest / "fs" / name for digest in reversed(layers))
        below = next((path for path in found if path.is_dir() and not path.is_symlink()), None)
        if below is not None:
            _copy_metadata(folder, below)


def _copy_metadata(folder: Path, below: Path) -> None:
    info = below.stat()
    os.chown(folder, info.st_uid, info.st_gid)
    folder.chmod(stat.S_IMODE(info.st_mode))
    for name in os.listxattr(below):
        if not name.startswith("trusted.overlay."):
            os.setxattr(folder, name, os.getxattr(below, name))


def _folders(tree: Path) -> Iterator[Path]:
    """Yield all folders, the deepest first: changes in a folder change its time."""
    for folder, _, _ in os.walk(tree, topdown=False):
        yield Path(folder)
