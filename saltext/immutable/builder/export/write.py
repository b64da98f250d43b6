"""What a builder does for an export: read the layers of an image, write one file."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import disk, oci, squashfs, tarball, target, tree
from saltext.immutable.builder.export.programs import fed, find
from saltext.immutable.host import Host, require_root, run
from saltext.immutable.images import layers, verify
from saltext.immutable.machines import images

Say = Callable[..., None]
"""Called with a sentence, a tag and data for each step of progress."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_PACKED = 2
"""An export is at most about one part in so many of its content: half, where a third is what was measured."""
_LABEL, _OURS = "org.opencontainers.image", "saltext.immutable"
"""Prefixes of labels: the standard's, and ours."""


def nothing(message: str, tag: str, **data: Any) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class _Image:
    """An image of this host, to be read."""

    about: Mapping[str, Any]
    layers: Sequence[oci.Layer]
    """Root first, the seal last."""

    @property
    def name(self) -> str:
        return f"{self.about['recipe']}@{self.about['image'][:12]}"

    @property
    def places(self) -> list[Path]:
        return [layer.place for layer in self.layers]


def export_image(host: Host, order: Mapping[str, Any], say: Say = nothing) -> dict[str, Any]:
    """Write an image to a file of this host; ``order``: digest, format, target, force, test, trusted.

    Return image, format, target, content (bytes of all files), free (bytes); and of the file bytes and sha256.
    """
    require_root()
    place = target.require(order["target"], order["force"])
    verify.require(host, order["digest"], order["trusted"])
    image = _image(host, order["digest"])
    content = sum(entry.size for entry in tree.merged(image.places))
    # A qcow2 is made from a raw disk beside it.
    free = target.require_room(place, content // _PACKED * (2 if order["format"] == "qcow2" else 1))
    told = {"image": image.name, "format": order["format"], "target": str(place), "content": content, "free": free}
    if order["test"]:
        if order["format"] in _DISKS:
            disk.require(_disk(image), tree.merged(image.places))
        return told
    try:
        with target.written(place, order["force"]) as file:
            FORMATS[order["format"]](file, image, _Progress(image.name, content, say))
            return told | {"bytes": file.seek(0, 2), "sha256": _sum(file)}
    except FileNotFoundError as err:
        raise CommandExecutionError(f"{image.name} was deleted while it was exported: {err.filename} is gone") from err


def _image(host: Host, digest: str) -> _Image:
    about = images.read(host, digest)
    *stack, seal = [(host.l / name).resolve() for name in images.lower(host, digest)]
    known = [layers.load(host, layer) for layer in about["layers"]]
    below = [oci.Layer(place, layer.what, layer.created) for place, layer in zip(stack, known, strict=True)]
    return _Image(about, [*below, oci.Layer(seal, "seal", about["created"])])


class _Progress:
    """Tells of each tenth."""

    def __init__(self, name: str, whole: int, say: Say) -> None:
        self._name, self._whole, self._say, self._done, self._told = name, max(whole, 1), say, 0, 0

    def __call__(self, entry: tree.Entry) -> None:
        self._done += entry.size
        tenth = min(10, 10 * self._done // self._whole)
        if tenth > self._told:
            self._told, said = tenth, f"exporting {self._name}: {tenth}0 % of {self._whole >> 20} MB"
            self._say(said, "image/export", image=self._name, percent=10 * tenth)


def _sum(file: IO[bytes]) -> str:
    file.seek(0)
    found = hashlib.sha256()
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


# Formats


def _tar(file: IO[bytes], image: _Image, seen: tarball.Seen) -> None:
    # With -T0 the bytes do not depend on how many cores there are.
    with fed(["zstd", f"-{squashfs.LEVEL}", "-q", "-T0", "-c"], out=file) as pipe:
        tarball.write(pipe, tree.merged(image.places), seen)


def _squashfs(file: IO[bytes], image: _Image, seen: tarball.Seen) -> None:
    squashfs.write(_place(file), image.places, image.about["created"], seen)


def _place(file: IO[bytes]) -> Path:
    """Return a name by which programs that we start find an open file."""
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _oci(file: IO[bytes], image: _Image, seen: tarball.Seen) -> None:
    about = image.about
    labels = {
        f"{_LABEL}.title": about["recipe"],
        f"{_LABEL}.version": about["image"][:12],
        f"{_LABEL}.created": oci.time(about["created"]),
        f"{_OURS}.image": image.name,
        f"{_OURS}.digest": about["image"],
        f"{_OURS}.recipe": about["recipe"],
        f"{_OURS}.salt": about["salt"],
        f"{_OURS}.pack": about["pack"],
    }
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    said = oci.About(about["recipe"], about["image"], about["created"], architecture, labels)
    oci.write(file, said, image.layers, seen)


def _raw(file: IO[bytes], image: _Image, seen: tarball.Seen) -> None:
    disk.write(_place(file), _disk(image), seen)


def _qcow2(file: IO[bytes], image: _Image, seen: tarball.Seen) -> None:
    convert = [find("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "qcow2"]
    # Without a name: a kill leaves nothing of it.
    with tempfile.TemporaryFile(dir=_place(file).readlink().parent) as raw:
        _raw(raw, image, seen)
        run([*convert, _place(raw), _place(file)])


def _disk(image: _Image) -> disk.Disk:
    about = image.about
    return disk.Disk(image.name, about["image"], about["created"], about["read_only"], image.places)


FORMATS: Mapping[str, Callable[[IO[bytes], _Image, tarball.Seen], None]] = {
    "tar": _tar,
    "squashfs": _squashfs,
    "oci": _oci,
    "raw": _raw,
    "qcow2": _qcow2,
}
"""What an image can be exported as, and who writes it."""
_DISKS = ("raw", "qcow2")
"""Formats that ask something of the image."""
