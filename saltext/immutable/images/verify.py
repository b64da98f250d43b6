"""Verify that layers and images are what was baked: layers by their digest, images by their signature.

A layer is read in full when this host first uses it after a boot, and again where a file has another inode, change time
or size than when it was last verified, which one walk finds out. Within ten minutes of that nothing is read.
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

_VALID_FOR = 600.0
"""Seconds after a verification of a layer in which it is not repeated."""
_MAX_LISTED = 3
"""Damaged files that an error lists."""
PREDICATE = "urn:saltext-immutable:image:1"


class Damaged(CommandExecutionError):  # type: ignore[misc]
    """A layer or an image is not what its digest or its signature says."""


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise CommandExecutionError unless all these layers are on this host and undamaged."""
    images.require_layers(host, digests)
    with host.lock("verify", wait=1800.0):
        for digest in digests:
            _layer(host, digest, full=False)


def require(host: Host, digest: str, trusted: Sequence[str]) -> str:
    """Return the digest of an image. Raise CommandExecutionError unless it is complete, undamaged and signed.

    ``trusted``: the public keys (base64) whose signatures count.
    """
    return _image(host, digest, trusted, full=False)


def image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read all of an image, also what was verified before; return the number of layers, files and bytes.

    Raises CommandExecutionError as `require` does.
    """
    _image(host, digest, trusted, full=True)
    stack = definition(host, digest)["layers"]
    lines = [line for layer in stack for line in _manifest(host, layer)]
    return {"layers": len(stack), "files": len(lines), "bytes": sum(line.get("size", 0) for line in lines)}


def _image(host: Host, digest: str, trusted: Sequence[str], full: bool) -> str:
    stack = definition(host, digest)["layers"]
    _require_signed(host, digest, trusted)
    images.require_layers(host, stack)
    with host.lock("verify", wait=1800.0):
        for layer in stack:
            _layer(host, layer, full)
    return digest


def definition(host: Host, digest: str) -> dict[str, Any]:
    """Return the definition of an image: what its digest is the hash of. Raise `Damaged` if it is not."""
    metadata = images.read(host, digest)
    if not {"recipe", "read_only", "grains", "policy"} <= set(metadata) or manifest.image_digest(metadata) != digest:
        raise damaged_image(host, digest, "image.json does not match the digest")
    return manifest.image_definition(metadata)


# Signatures


def statement(
    name: str, digest: str, seal: Sequence[Mapping[str, Any]], provenance: Any, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the statement to be signed: an in-toto statement about the image, its provenance and its seal layer.

    ``seal``: the manifest of the seal layer. ``more``: further fields of the predicate.
    """
    predicate = {**more, "provenance": manifest.digest(provenance), "seal": list(seal)}
    subject = {"name": name, "digest": {"sha256": digest}}
    return {"_type": sign.STATEMENT, "subject": [subject], "predicateType": PREDICATE, "predicate": predicate}


def seal_manifest(host: Host, digest: str) -> list[dict[str, Any]]:
    """Return the manifest of an image's seal layer."""
    return list(manifest.entries(images.metadata_file(host, digest).parent / "seal"))


def _proof_file(host: Host, digest: str) -> Path:
    return images.metadata_file(host, digest).parent / "proof.json"


def read_proof(host: Host, digest: str) -> dict[str, Any] | None:
    """Return ``signature`` and ``provenance`` of an image, or None where it is not signed yet."""
    try:
        found = json.loads(_proof_file(host, digest).read_text())
        return {name: found[name] for name in ("signature", "provenance")}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as err:
        raise damaged_image(host, digest, f"proof.json, its signature, cannot be read: {err}") from err


def keep_proof(host: Host, digest: str, proof: Mapping[str, Any]) -> None:
    """Store ``signature`` and ``provenance`` of an image beside it."""
    images.require_image(host, digest)
    write(_proof_file(host, digest), json.dumps(proof))


def _require_signed(host: Host, digest: str, trusted: Sequence[str]) -> None:
    """Raise CommandExecutionError unless one of ``trusted`` signed the image and its seal layer as it is."""
    proof = read_proof(host, digest)
    if proof is None:
        raise CommandExecutionError(
            f"image {digest[:12]} has no signature; bake its recipe again, or if you are sure that it was not changed, "
            f"salt-run image.sign {digest[:12]}"
        )
    try:
        require_signed(digest, proof, seal_manifest(host, digest), trusted)
    except Damaged as err:
        raise damaged_image(host, digest, str(err)) from err


def require_signed(
    digest: str, proof: Mapping[str, Any], seal: Sequence[Mapping[str, Any]], trusted: Sequence[str]
) -> None:
    """Raise CommandExecutionError unless one of ``trusted`` signed the image with this manifest of its seal layer."""
    predicate = signed_predicate(digest, proof, trusted)
    if wrong := list(_differences(predicate["seal"], seal)):
        raise Damaged(f"{_list(wrong)} (the signature covers {SEAL_PATH} and the files beside it)")


def signed_predicate(digest: str, proof: Mapping[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """Return the predicate that one of ``trusted`` signed about an image and its provenance.

    Raises CommandExecutionError where the signature is not trusted or not valid, and `Damaged` where it is for another
    image or another provenance.
    """
    try:
        statement_ = sign.verify(proof["signature"], trusted)
    except CommandExecutionError as err:
        raise CommandExecutionError(f"image {digest[:12]} may not be used: {err}") from err
    if statement_.get("predicateType") != PREDICATE or statement_["subject"][0]["digest"] != {"sha256": digest}:
        raise Damaged(f"the signature of image {digest[:12]} is for another image")
    if statement_["predicate"]["provenance"] != manifest.digest(proof["provenance"]):
        raise Damaged(f"the provenance of image {digest[:12]} is not the one that was signed")
    return dict(statement_["predicate"])


def damaged_image(host: Host, digest: str, what: str) -> Damaged:
    """Return the error for a damaged image, with what to do. ``what``: what is wrong."""
    folder = images.metadata_file(host, digest).parent
    return Damaged(
        f"image {digest[:12]} is damaged: {what}. Remove {folder} on this host when no machine runs it, and bake its "
        "recipe again"
    )


# Layers


def _layer(host: Host, digest: str, full: bool) -> None:
    """Raise `Damaged` unless the layer is what its digest says. ``full``: read it even if it was verified before."""
    folder = host.layers / digest
    last = {} if full else _last_verification(folder)
    if time.time() - last.get("at", 0.0) < _VALID_FOR and last.get("own") == _fingerprint(folder, ["."]):
        return
    lines = _manifest(host, digest)
    # Before the files are read, so that a change meanwhile is found the next time.
    files = fingerprint(host, digest, [line["path"] for line in lines])
    read = full or last.get("files") != files
    if read and (wrong := list(_differences(lines, _entries(host, digest)))):
        raise damaged_layer(host, digest, _list(wrong))
    mark_verified(host, digest, files)


def _entries(host: Host, digest: str) -> list[dict[str, Any]]:
    try:
        return list(manifest.entries(host.layers / digest / "fs"))
    except OSError as err:
        raise damaged_layer(host, digest, f"{err.filename or 'a file'} cannot be read: {err.strerror}") from err


def fingerprint(host: Host, digest: str, paths: Sequence[str]) -> str:
    """Return a fingerprint of a layer's files, which any change of them changes. The files are not read."""
    return _fingerprint(host.layers / digest / "fs", paths)


def mark_verified(host: Host, digest: str, files: str) -> None:
    """Record that a layer was verified. ``files``: the fingerprint of its files."""
    folder = host.layers / digest
    (folder / "seen.json").touch()  # before the fingerprint of the folder, which a new file changes
    record = {"boot": this_boot(), "at": time.time(), "own": _fingerprint(folder, ["."]), "files": files}
    (folder / "seen.json").write_text(json.dumps(record))


def _last_verification(folder: Path) -> dict[str, Any]:
    """Return the record of a layer's last verification since the boot, {} where there is none."""
    try:
        found = json.loads((folder / "seen.json").read_text())
        return dict(found) if found["boot"] == this_boot() and found["at"] <= time.time() else {}
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}


def _fingerprint(root: Path, paths: Sequence[str]) -> str:
    """Return a hash of inode, change time and size of files."""
    hash_ = hashlib.sha256()
    for path in paths:
        try:
            info = os.lstat(f"{root}/{path}")
        except OSError:
            return "incomplete"
        hash_.update(f"{path} {info.st_ino} {info.st_ctime_ns} {info.st_size}\n".encode(errors="surrogateescape"))
    return hash_.hexdigest()


def _manifest(host: Host, digest: str) -> list[dict[str, Any]]:
    try:
        text = gzip.decompress((host.layers / digest / "manifest.gz").read_bytes())
    except (OSError, EOFError, zlib.error) as err:
        raise damaged_layer(host, digest, f"its manifest cannot be read: {err}") from err
    if hashlib.sha256(text).hexdigest() != digest:
        raise damaged_layer(host, digest, "its manifest does not match the digest")
    return [json.loads(line) for line in text.splitlines()]


def damaged_layer(host: Host, digest: str, what: str) -> Damaged:
    """Return the error for a damaged layer, with what to do. ``what``: what is wrong."""
    return Damaged(
        f"layer {digest[:12]} is damaged: {what}. Remove {host.layers / digest} on this host when no machine runs on "
        "it, and bake again"
    )


def _differences(expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a phrase for each file that is not as ``expected``."""
    left = {line["path"]: line for line in found}
    for line in expected:
        now = left.pop(line["path"], None)
        if now is None:
            yield f"/{line['path']} is missing"
        elif wrong := [name for name in {**line, **now} if line.get(name) != now.get(name)]:
            names = ", ".join("content" if name == "sha256" else name for name in wrong)
            yield f"/{line['path']} has changed ({names})"
    yield from (f"/{path} was added" for path in left)


def _list(wrong: Sequence[str]) -> str:
    """Return the first of several phrases, and how many more there are."""
    more = f" and {len(wrong) - _MAX_LISTED} more" if len(wrong) > _MAX_LISTED else ""
    return f"{'; '.join(wrong[:_MAX_LISTED])}{more}"
