"""Read the image that a machine is compared with, and prove each of its files by the image's digest."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saltext.immutable.guard.seal import SEAL_PATH, Seal
from saltext.immutable.images import manifest, seal_layer
from saltext.immutable.images.stack import Entry, merged, parents

ADOPTED = "var/lib/immutable"
"""The folder where an adopted machine keeps what an image has in /etc/immutable."""


class Forged(Exception):
    """The digest does not prove a file of the image. Holds its path and what is wrong with it."""


@dataclass(frozen=True)
class Image:
    """The image that a machine is compared with."""

    digest: str
    files: Mapping[str, Entry]
    """Path without the first slash to entry."""
    own: frozenset[str]
    """Files that are in no layer: the seal and the proof."""
    names: Sequence[str]
    """Names of the layers for people, the root first."""
    reference: str
    """Folder with the image's own copies of files."""

    def copy(self, path: str) -> bytes | None:
        """Return the content that a file has in the image; None if no copy has the hash of its manifest."""
        entry = self.files.get(path)
        try:
            with open(f"{self.reference}/{path}", "rb") as file:
                text = file.read()
        except OSError:
            return None
        return text if entry and hashlib.sha256(text).hexdigest() == entry.content else None


def read(root: str, found: Seal, digest: str) -> Image:
    """Return the image of the machine at ``root``, whose seal is ``found``.

    Raises ``Forged`` if ``digest`` does not prove all of it.
    """
    try:
        return _read(root, found, digest)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise Forged(SEAL_PATH, f"the proof of the image is damaged ({type(err).__name__}: {err})") from err


def _read(root: str, found: Seal, digest: str) -> Image:
    folder = ADOPTED if found.adopted else seal_layer.FOLDER
    order = _order(root, f"{folder}/{_below(seal_layer.DEFINITION)}", digest)
    _require_seal(found, order, digest)
    _require_above(root, order)
    lines = [_lines(root, f"{folder}/{_below(seal_layer.MANIFESTS)}/{each}.gz", each) for each in order["layers"]]
    names = _names(root, f"{folder}/{_below(seal_layer.NAMES)}")
    return Image(
        digest=digest,
        files=merged(lines),
        own=frozenset(_own(folder, order)),
        names=[names.get(each, each[:12]) for each in order["layers"]],
        reference=f"{root.rstrip('/')}/{folder}/{_below(seal_layer.REFERENCE)}",
    )


def _below(path: str) -> str:
    return path.removeprefix(f"{seal_layer.FOLDER}/")


def _order(root: str, path: str, digest: str) -> dict[str, Any]:
    try:
        order = json.loads(_bytes(root, path))
        found = manifest.image_digest(order)
    except (ValueError, TypeError, KeyError) as err:
        raise Forged(f"/{path}", f"it cannot be read ({type(err).__name__}: {err})") from err
    if found != digest:
        raise Forged(f"/{path}", f"it belongs to image {found[:12]}, but this machine should run {digest[:12]}")
    return dict(order)


def _require_seal(found: Seal, order: Mapping[str, Any], digest: str) -> None:
    sealed = {"image": found.image, "recipe": found.recipe, "read_only": found.read_only, "policy": found.policy}
    proven = {"image": digest, **{name: order[name] for name in ("recipe", "read_only", "policy")}}
    if wrong := sorted(name for name, value in sealed.items() if value != proven[name]):
        raise Forged(SEAL_PATH, f"the seal differs from the image in {', '.join(wrong)}")


def _require_above(root: str, order: Mapping[str, Any]) -> None:
    """Raise unless the files that follow from the image's description (its grains, for example) have that content."""
    for path, text in seal_layer.derived_files(order).items():
        if _bytes(root, path.lstrip("/")) != text.encode():
            raise Forged(path, "its content differs from the image")


def _lines(root: str, path: str, digest: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = gzip.decompress(_bytes(root, path))
    except (OSError, EOFError, zlib.error) as err:
        raise Forged(f"/{path}", f"it cannot be read ({err})") from err
    if hashlib.sha256(text).hexdigest() != digest:
        raise Forged(f"/{path}", "it is not the manifest of the layer that it is named after")
    return map(json.loads, text.splitlines())


def _names(root: str, path: str) -> dict[str, str]:
    """Return digest to name of the layers, for people; nothing depends on it."""
    try:
        found = json.loads(_bytes(root, path))
        return {str(digest): str(name) for digest, name in found.items()}
    except (Forged, ValueError, AttributeError):
        return {}


def _bytes(root: str, path: str) -> bytes:
    try:
        with open(f"{root.rstrip('/')}/{path}", "rb") as file:
            return file.read()
    except OSError as err:
        raise Forged(f"/{path}", f"it cannot be read ({os.strerror(err.errno or 0)})") from err


def _own(folder: str, order: Mapping[str, Any]) -> Iterator[str]:
    yield from (seal_layer.FOLDER, SEAL_PATH.lstrip("/"), folder)
    inside = (seal_layer.DEFINITION, seal_layer.NAMES, seal_layer.MANIFESTS, seal_layer.REFERENCE)
    yield from (f"{folder}/{_below(path)}" for path in inside)
    yield from (f"{folder}/{_below(seal_layer.MANIFESTS)}/{digest}.gz" for digest in order["layers"])
    for path in seal_layer.COPIED:
        copy = f"{folder}/{_below(seal_layer.REFERENCE)}/{path}"
        yield copy
        yield from (above for above in parents(copy) if len(above) > len(folder))
    for path in seal_layer.derived_files(order):
        yield path.lstrip("/")
        yield os.path.dirname(path).lstrip("/")
