"""Export an image: verify it, read its layers, write one file."""

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
from saltext.immutable.builder.export.programs import find, piped
from saltext.immutable.host import Host, require_root, run
from saltext.immutable.images import layers, verify
from saltext.immutable.machines import images

Progress = Callable[..., None]
"""Called with a message, the tag of an event and the event's data."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_COMPRESSION = 2
"""An export is assumed to be smaller than its content by this factor; about 3 was measured."""
_LABEL, _OURS = "org.opencontainers.image", "saltext.immutable"
"""Prefixes of labels: the standard's, and ours."""


def silent(message: str, tag: str, **data: Any) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class _Image:
    """An image of this host, to be exported."""

    about: Mapping[str, Any]
    layers: Sequence[oci.Layer]
    """Root first, the seal last."""

    @property
    def name(self) -> str:
        return f"{self.about['recipe']}@{self.about['image'][:12]}"

    @property
    def paths(self) -> list[Path]:
        return [layer.path for layer in self.layers]


def export_image(host: Host, order: Mapping[str, Any], progress: Progress = silent) -> dict[str, Any]:
    """Write an image to a file of this host.

    ``order``: digest, format, target (path), force (replace the target), test (write nothing), trusted (public keys).
    Return image, format, target, content (bytes of all files), free (bytes), and unless ``test`` bytes and sha256 of
    the file. Raises SaltInvocationError for a target that may not be written, and CommandExecutionError where the image
    is damaged, lacks what the format needs, or the disk is too small.
    """
    require_root()
    path = target.require(order["target"], order["force"])
    require = verify.require if order["test"] else verify.image  # all of it is read in any case
    require(host, order["digest"], order["trusted"])
    image = _image(host, order["digest"])
    content = sum(entry.size for entry in tree.merged(image.paths))
    # A qcow2 is converted from a temporary raw disk in the same folder.
    free = target.require_space(path, content // _COMPRESSION * (2 if order["format"] == "qcow2" else 1))
    report = {"image": image.name, "format": order["format"], "target": str(path), "content": content, "free": free}
    if order["test"]:
        if order["format"] in _DISKS:
            disk.require(_disk(image), tree.merged(image.paths))
        return report
    try:
        with target.create(path, order["force"]) as file:
            FORMATS[order["format"]](file, image, _Tenths(image.name, content, progress))
            verify.require(host, order["digest"], order["trusted"])  # nothing has changed meanwhile
            return report | {"bytes": file.seek(0, 2), "sha256": _sha256(file)}
    except FileNotFoundError as err:
        raise CommandExecutionError(
            f"{image.name} was deleted while it was exported: {err.filename} is gone; bake it again, and export that"
        ) from err


def _image(host: Host, digest: str) -> _Image:
    about = images.read(host, digest)
    *stack, seal = [(host.l / name).resolve() for name in images.lower(host, digest)]
    known = [layers.load(host, layer) for layer in about["layers"]]
    below = [oci.Layer(path, layer.what, layer.created) for path, layer in zip(stack, known, strict=True)]
    return _Image(about, [*below, oci.Layer(seal, "seal", about["created"])])


class _Tenths:
    """Counts the bytes of files and reports each tenth of ``whole``."""

    def __init__(self, name: str, whole: int, progress: Progress) -> None:
        self._name, self._whole, self._progress = name, max(whole, 1), progress
        self._done = self._reported = 0

    def __call__(self, entry: tree.Entry) -> None:
        self._done += entry.size
        tenth = min(10, 10 * self._done // self._whole)
        if tenth > self._reported:
            self._reported = tenth
            message = f"exporting {self._name}: {tenth}0 % of {self._whole >> 20} MB"
            self._progress(message, "image/export", image=self._name, percent=10 * tenth)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    found = hashlib.sha256()
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


# Formats


def _tar(file: IO[bytes], image: _Image, on_entry: tarball.OnEntry) -> None:
    # With -T0 the bytes do not depend on the number of CPUs.
    with piped(["zstd", f"-{squashfs.LEVEL}", "-q", "-T0", "-c"], out=file) as stdin:
        tarball.write(stdin, tree.merged(image.paths), on_entry)


def _squashfs(file: IO[bytes], image: _Image, on_entry: tarball.OnEntry) -> None:
    squashfs.write(_path(file), image.paths, image.about["created"], on_entry)


def _path(file: IO[bytes]) -> Path:
    """Return a path by which another program can open a file that this process has open."""
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _oci(file: IO[bytes], image: _Image, on_entry: tarball.OnEntry) -> None:
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
    metadata = oci.Image(about["recipe"], about["image"], about["created"], architecture, labels)
    oci.write(file, metadata, image.layers, on_entry)


def _raw(file: IO[bytes], image: _Image, on_entry: tarball.OnEntry) -> None:
    disk.write(_path(file), _disk(image), on_entry)


def _qcow2(file: IO[bytes], image: _Image, on_entry: tarball.OnEntry) -> None:
    convert = [find("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "qcow2"]
    # Without a name, so that nothing is left after a kill.
    with tempfile.TemporaryFile(dir=_path(file).readlink().parent) as raw:
        _raw(raw, image, on_entry)
        run([*convert, _path(raw), _path(file)])


def disk_of(host: Host, digest: str) -> disk.Disk:
    """Return an image of this host as `disk.write` takes it."""
    return _disk(_image(host, digest))


def _disk(image: _Image) -> disk.Disk:
    about = image.about
    return disk.Disk(image.name, about["image"], about["created"], about["read_only"], image.paths)


FORMATS: Mapping[str, Callable[[IO[bytes], _Image, tarball.OnEntry], None]] = {
    "tar": _tar,
    "squashfs": _squashfs,
    "oci": _oci,
    "raw": _raw,
    "qcow2": _qcow2,
}
"""The format of an export -> the function that writes it."""
_DISKS = ("raw", "qcow2")
"""Formats that have requirements on the image."""
