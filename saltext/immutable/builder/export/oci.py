"""Export an image as an OCI archive. Each layer of the image is a layer of OCI, so registries store shared ones once.

``manifest.json`` beside ``index.json`` makes the archive readable for every ``docker load``.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

from saltext.immutable.builder.export import tarball, tree

_KIND = "application/vnd.oci.image"
_BLOCK = 512
_LEVEL = 4


@dataclass(frozen=True)
class Layer:
    """One layer of the image, as it is on the builder."""

    path: Path
    what: str
    created: float


@dataclass(frozen=True)
class Image:
    """Metadata of the image."""

    recipe: str
    digest: str
    created: float
    architecture: str
    """In Go's terms: ``amd64``."""
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """The name under which docker and podman load it."""
        return f"localhost/{self.recipe}:{self.digest[:12]}"


def write(
    out: IO[bytes], image: Image, layers: Sequence[Layer], on_entry: tarball.OnEntry = lambda entry: None
) -> None:
    """Write the archive to a seekable file: the name of a blob, its hash, is known only after its content.

    ``on_entry`` is called with each file.
    """
    archive = _Archive(out)
    packed = [_layer(archive, layer, on_entry) for layer in layers]
    blobs, diff_ids = [blob for blob, _ in packed], [diff_id for _, diff_id in packed]
    config = archive.json_blob(f"{_KIND}.config.v1+json", _config(image, layers, diff_ids))
    kind = f"{_KIND}.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": blobs, "annotations": image.labels}
    descriptor = archive.json_blob(kind, manifest)
    names = {"org.opencontainers.image.ref.name": image.name, "io.containerd.image.name": image.name}
    descriptor |= {"annotations": names, "platform": {"architecture": image.architecture, "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": f"{_KIND}.index.v1+json", "manifests": [descriptor]}
    archive.file("index.json", _json(index))
    archive.file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    docker = {"Config": _path(config), "RepoTags": [image.name], "Layers": [_path(blob) for blob in blobs]}
    archive.file("manifest.json", _json([docker]))
    archive.close()


def _layer(archive: _Archive, layer: Layer, on_entry: tarball.OnEntry) -> tuple[dict[str, Any], str]:
    """Write a layer as a blob; return its descriptor, and its diff_id, the digest before compression."""
    with archive.blob() as sink:
        packed = _Gzip(sink)
        tarball.write_layer(cast("IO[bytes]", packed), tree.of_layer(layer.path), on_entry)
        packed.close()
    return sink.descriptor(f"{_KIND}.layer.v1.tar+gzip"), f"sha256:{packed.unpacked.hexdigest()}"


def _config(image: Image, layers: Sequence[Layer], diff_ids: Sequence[str]) -> dict[str, Any]:
    """Return the image configuration: how a container of the image is run."""
    run = {"Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "Labels": image.labels}
    run["Env"] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"]
    return {
        "created": time(image.created),
        "architecture": image.architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": time(layer.created), "created_by": layer.what} for layer in layers],
    }


def time(seconds: float) -> str:
    """Return epoch seconds as OCI writes a time."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _path(descriptor: dict[str, Any]) -> str:
    """Return the path of a blob in the archive."""
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


class _HashingWriter:
    """A file that counts and hashes what is written to it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self.size, self.sum = out, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.sum.update(data)
        return self._out.write(data)

    def descriptor(self, kind: str) -> dict[str, Any]:
        """Return the descriptor of what was written."""
        return {"mediaType": kind, "digest": f"sha256:{self.sum.hexdigest()}", "size": self.size}


class _Gzip:
    """A file that compresses what is written to it, without a name and a time in its header."""

    def __init__(self, out: _HashingWriter) -> None:
        self._out, self._zip = out, zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        self.unpacked = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.unpacked.update(data)
        self._out.write(self._zip.compress(data))
        return len(data)

    def close(self) -> None:
        self._out.write(self._zip.flush())


class _Archive:
    """A tar file in which the name and size of a member may be written after its content."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    @contextmanager
    def blob(self) -> Iterator[_HashingWriter]:
        """Give a file for the content of a blob; the header follows at the end."""
        start = self._out.tell()
        self._out.write(bytes(_BLOCK))
        sink = _HashingWriter(self._out)
        yield sink
        self._out.write(bytes(-sink.size % _BLOCK))
        end = self._out.tell()
        self._out.seek(start)
        self._out.write(_member(_path(sink.descriptor("")), sink.size))
        self._out.seek(end)

    def json_blob(self, kind: str, data: Any) -> dict[str, Any]:
        """Write data as a blob; return its descriptor."""
        with self.blob() as sink:
            sink.write(_json(data))
        return sink.descriptor(kind)

    def file(self, path: str, content: bytes) -> None:
        """Write a file."""
        self._out.write(_member(path, len(content)) + content + bytes(-len(content) % _BLOCK))

    def close(self) -> None:
        """Write the end of the archive."""
        self._out.write(bytes(2 * _BLOCK))


def _member(path: str, size: int) -> bytes:
    header = tarfile.TarInfo(path)
    header.size = size
    found = header.tobuf(tarfile.GNU_FORMAT)  # whose sizes have no limit
    assert len(found) == _BLOCK, path
    return found
