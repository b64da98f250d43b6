"""Is what lies here still what was baked? Layers are compared with their digest, images with what was signed.

A layer is read in full when this host first uses it after a boot, and again where a file of it has another inode,
change time or size than when it was read or baked; to see that takes one walk. Within ten minutes it takes nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, this_boot, write
from saltext.immutable.images import manifest, sign
from saltext.immutable.machines import images

_GOOD_FOR = 600.0
"""Seconds for which a layer that was looked at is believed without another look."""
_NAMED = 3
"""Damaged files that an error names."""
PREDICATE = "urn:saltext-immutable:image:1"


class Damaged(CommandExecutionError):  # type: ignore[misc]
    """A layer or an image is not what its digest and its signature say."""


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise unless all these layers are here, and as they were baked."""
    images.require_layers(host, digests)
    with host.lock("verify", wait=1800.0):
        for digest in digests:
            _layer(host, digest, full=False)


def require(host: Host, digest: str, trusted: Sequence[str]) -> str:
    """Return the digest of an image of this host that may be used: all of it is as one of ``trusted`` signed it."""
    return _image(host, digest, trusted, full=False)


def image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read all of an image, whatever was seen before; return how many ``layers``, ``files`` and ``bytes``."""
    _image(host, digest, trusted, full=True)
    stack = order(host, digest)["layers"]
    lines = [line for layer in stack for line in _manifest(host, layer)]
    return {"layers": len(stack), "files": len(lines), "bytes": sum(line.get("size", 0) for line in lines)}


def _image(host: Host, digest: str, trusted: Sequence[str], full: bool) -> str:
    stack = order(host, digest)["layers"]
    _require_signed(host, digest, trusted)
    images.require_layers(host, stack)
    with host.lock("verify", wait=1800.0):
        for layer in stack:
            _layer(host, layer, full)
    return digest


def order(host: Host, digest: str) -> dict[str, Any]:
    """Return what an image of this host is made of, if its digest is the hash of that."""
    about = images.read(host, digest)
    if not {"recipe", "read_only", "grains", "policy"} <= set(about) or manifest.image_digest(about) != digest:
        raise damaged_image(host, digest, "image.json is not what its digest is the hash of")
    return manifest.of_image(about)


# What is signed


def statement(
    name: str, digest: str, seal: Sequence[Mapping[str, Any]], provenance: Any, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a signature vouches for: the image, where it comes from, and all that its seal adds to the layers."""
    predicate = {**more, "provenance": manifest.digest(provenance), "seal": list(seal)}
    subject = {"name": name, "digest": {"sha256": digest}}
    return {"_type": sign.STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": predicate}


def above(host: Host, digest: str) -> list[dict[str, Any]]:
    """Return the manifest of what an image has above its layers: the seal, and the proof of what is below."""
    return list(manifest.entries(_seal(host, digest)))


def _seal(host: Host, digest: str) -> Path:
    return images.metadata_file(host, digest).parent / "seal"


def _proof_file(host: Host, digest: str) -> Path:
    return images.metadata_file(host, digest).parent / "proof.json"


def proof(host: Host, digest: str) -> dict[str, Any] | None:
    """Return what vouches for an image (``signature``, ``provenance``); None: nobody signed it yet."""
    try:
        found = json.loads(_proof_file(host, digest).read_text())
        return {name: found[name] for name in ("signature", "provenance")}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as err:
        raise damaged_image(host, digest, f"proof.json, its signature, cannot be read: {err}") from err


def keep_proof(host: Host, digest: str, vouches: Mapping[str, Any]) -> None:
    """Put what vouches for an image beside it."""
    images.require_image(host, digest)
    write(_proof_file(host, digest), json.dumps(vouches))


def _require_signed(host: Host, digest: str, trusted: Sequence[str]) -> None:
    """Raise unless one of ``trusted`` signed the image, and its seal and all around it are as that says."""
    vouches = proof(host, digest)
    if vouches is None:
        raise CommandExecutionError(
            f"image {digest[:12]} has no signature; bake its recipe again, or if you know that it is as it was baked, "
            f"salt-run image.sign {digest[:12]}"
        )
    try:
        require_signed(digest, vouches, above(host, digest), trusted)
    except Damaged as err:
        raise damaged_image(host, digest, str(err)) from err


def require_signed(
    digest: str, vouches: Mapping[str, Any], seal: Sequence[Mapping[str, Any]], trusted: Sequence[str]
) -> None:
    """Raise unless one of ``trusted`` signed an image that has this above its layers."""
    said = vouched(digest, vouches, trusted)
    if wrong := list(_differences(said["seal"], seal)):
        raise Damaged(f"{_named(wrong)} (signed are {SEAL_PATH} and what lies around it)")


def vouched(digest: str, vouches: Mapping[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """Return what one of ``trusted`` signed about an image; raise where it is of something else."""
    try:
        said = sign.opened(vouches["signature"], trusted)
    except CommandExecutionError as err:
        raise CommandExecutionError(f"image {digest[:12]} may not be used: {err}") from err
    if said.get("predicateType") != PREDICATE or said["subject"][0]["digest"] != {"sha256": digest}:
        raise Damaged(f"the signature of image {digest[:12]} is about something else")
    if said["predicate"]["provenance"] != manifest.digest(vouches["provenance"]):
        raise Damaged(f"the provenance of image {digest[:12]} is not the one that was signed")
    return dict(said["predicate"])


def damaged_image(host: Host, digest: str, what: str) -> Damaged:
    """Return the error that refuses an image, and says how to mend it."""
    place = images.metadata_file(host, digest).parent
    return Damaged(
        f"image {digest[:12]} is damaged: {what}; it may not be used: remove {place} there (no machine may run it) "
        "and bake its recipe again"
    )


# Layers


def _layer(host: Host, digest: str, full: bool) -> None:
    """Raise unless the layer is what its digest says; remember that it was looked at."""
    place = host.layers / digest
    seen = {} if full else _seen(place)
    if time.time() - seen.get("at", 0.0) < _GOOD_FOR and seen.get("own") == _print(place, ["."]):
        return
    lines = _manifest(host, digest)
    files = print_of(host, digest, [line["path"] for line in lines])  # before they are read, lest a change be missed
    read = full or seen.get("files") != files
    if read and (wrong := list(_differences(lines, _entries(host, digest)))):
        raise damaged_layer(host, digest, _named(wrong))
    note(host, digest, files)


def _entries(host: Host, digest: str) -> list[dict[str, Any]]:
    try:
        return list(manifest.entries(host.layers / digest / "fs"))
    except OSError as err:
        raise damaged_layer(host, digest, f"{err.filename or 'a file'} cannot be read: {err.strerror}") from err


def print_of(host: Host, digest: str, paths: Sequence[str]) -> str:
    """Return what changes with any change of a layer's files."""
    return _print(host.layers / digest / "fs", paths)


def note(host: Host, digest: str, files: str) -> None:
    """Remember that a layer is as it should be; ``files``: the print of them."""
    place = host.layers / digest
    (place / "seen.json").touch()  # before the print of the folder, which would be another one afterwards
    about = {"boot": this_boot(), "at": time.time(), "own": _print(place, ["."]), "files": files}
    (place / "seen.json").write_text(json.dumps(about))


def _seen(place: Path) -> dict[str, Any]:
    """Return what is remembered of a layer since the boot; what cannot be read was not seen."""
    try:
        found = json.loads((place / "seen.json").read_text())
        return dict(found) if found["boot"] == this_boot() and found["at"] <= time.time() else {}
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}


def _print(root: Path, paths: Sequence[str]) -> str:
    """Return what changes when anybody changes one of these files: inode, change time, size."""
    print_ = hashlib.sha256()
    for path in paths:
        try:
            info = os.lstat(f"{root}/{path}")
        except OSError:
            return "incomplete"
        print_.update(f"{path} {info.st_ino} {info.st_ctime_ns} {info.st_size}\n".encode(errors="surrogateescape"))
    return print_.hexdigest()


def _manifest(host: Host, digest: str) -> list[dict[str, Any]]:
    try:
        text = gzip.decompress((host.layers / digest / "manifest.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as err:
        raise damaged_layer(host, digest, f"its manifest cannot be read: {err}") from err
    if hashlib.sha256(text).hexdigest() != digest:
        raise damaged_layer(host, digest, "its manifest is not what its digest is the hash of")
    return [json.loads(line) for line in text.splitlines()]


def damaged_layer(host: Host, digest: str, what: str) -> Damaged:
    """Return the error that refuses a layer, and says how to mend it."""
    place = host.layers / digest
    return Damaged(
        f"layer {digest[:12]} is damaged: {what}; no image may use it: remove {place} there (no machine may run on it) "
        "and bake again"
    )


def _differences(expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each file that is not as ``expected``."""
    left = {line["path"]: line for line in found}
    for line in expected:
        now = left.pop(line["path"], None)
        if now is None:
            yield f"/{line['path']} is gone"
        elif wrong := [name for name in {**line, **now} if line.get(name) != now.get(name)]:
            yield f"/{line['path']} has another {', '.join('content' if name == 'sha256' else name for name in wrong)}"
    yield from (f"/{path} is new" for path in left)


def _named(wrong: Sequence[str]) -> str:
    more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return f"{'; '.join(wrong[:_NAMED])}{more}"
