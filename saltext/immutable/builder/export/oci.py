"""An image as OCI archive: each layer stays one, so registries and hosts share what images share.

``manifest.json`` stands beside ``index.json``: by it any ``docker load`` reads the same blobs.
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
    """One layer, as it lies on the builder."""

    place: Path
    what: str
    created: float


@dataclass(frozen=True)
class About:
    """What is said of an image."""

    recipe: str
    digest: str
    created: float
    architecture: str
    """As Go names it: ``amd64``."""
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """Return the name that docker and podman give it."""
        return f"localhost/{self.recipe}:{self.digest[:12]}"


def write(out: IO[bytes], about: About, layers: Sequence[Layer], seen: tarball.Seen = lambda entry: None) -> None:
    """Write the archive to a file that can be sought in: the name of a blob is known only when it was written."""
    archive = _Archive(out)
    packed = [_layer(archive, layer, seen) for layer in layers]
    blobs, diff_ids = [blob for blob, _ in packed], [diff_id for _, diff_id in packed]
    config = archive.json_blob(f"{_KIND}.config.v1+json", _config(about, layers, diff_ids))
    kind = f"{_KIND}.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": blobs, "annotations": about.labels}
    described = archive.json_blob(kind, manifest)
    names = {"org.opencontainers.image.ref.name": about.name, "io.containerd.image.name": about.name}
    described |= {"annotations": names, "platform": {"architecture": about.architecture, "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": f"{_KIND}.index.v1+json", "manifests": [described]}
    archive.file("index.json", _json(index))
    archive.file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    docker = {"Config": _path(config), "RepoTags": [about.name], "Layers": [_path(blob) for blob in blobs]}
    archive.file("manifest.json", _json([docker]))
    archive.close()


def _layer(archive: _Archive, layer: Layer, seen: tarball.Seen) -> tuple[dict[str, Any], str]:
    """Write a layer; return its descriptor, and the digest of what is in it before it is compressed."""
    with archive.blob() as sink:
        packed = _Gzip(sink)
        tarball.write_layer(cast("IO[bytes]", packed), tree.of_layer(layer.place), seen)
        packed.close()
    return sink.described(f"{_KIND}.layer.v1.tar+gzip"), f"sha256:{packed.unpacked.hexdigest()}"


def _config(about: About, layers: Sequence[Layer], diff_ids: Sequence[str]) -> dict[str, Any]:
    """Return how the image is run: booted, as its machines are."""
    run = {"Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "Labels": about.labels}
    run["Env"] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"]
    return {
        "created": time(about.created),
        "architecture": about.architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": time(layer.created), "created_by": layer.what} for layer in layers],
    }


def time(seconds: float) -> str:
    """Return a time as OCI writes it."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _path(described: dict[str, Any]) -> str:
    return f"blobs/{described['digest'].replace(':', '/')}"


class _Summed:
    """Counts and hashes what goes through."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self.size, self.sum = out, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.sum.update(data)
        return self._out.write(data)

    def described(self, kind: str) -> dict[str, Any]:
        """Return the descriptor of what went through."""
        return {"mediaType": kind, "digest": f"sha256:{self.sum.hexdigest()}", "size": self.size}


class _Gzip:
    """Compresses what goes through, without a name and a time."""

    def __init__(self, out: _Summed) -> None:
        self._out, self._zip = out, zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        self.unpacked = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.unpacked.update(data)
        self._out.write(self._zip.compress(data))
        return len(data)

    def close(self) -> None:
        self._out.write(self._zip.flush())


class _Archive:
    """A tar file whose members may get their name and size after their content."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    @contextmanager
    def blob(self) -> Iterator[_Summed]:
        """Give what a blob is written to; it is described afterwards."""
        start = self._out.tell()
        self._out.write(bytes(_BLOCK))
        sink = _Summed(self._out)
        yield sink
        self._out.write(bytes(-sink.size % _BLOCK))
        end = self._out.tell()
        self._out.seek(start)
        self._out.write(_member(_path(sink.described("")), sink.size))
        self._out.seek(end)

    def json_blob(self, kind: str, data: Any) -> dict[str, Any]:
        """Write data as a blob; return its descriptor."""
        with self.blob() as sink:
            sink.write(_json(data))
        return sink.described(kind)

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
