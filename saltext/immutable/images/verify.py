"""Verify that layers and images are what was baked: layers by their digest, images by their signature.

A layer is read in full when this host first uses it after a boot, and again where a file has another inode, change time
or size than when it was last verified. One walk finds that out, for each launch and each use of a bake; those that wait
for the walk of another one need none of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, this_boot, write
from saltext.immutable.images import manifest, sign, verity
from saltext.immutable.machines import damaged_images, images

_MAX_LISTED = 3
"""Damaged files that an error lists."""
_NAME = attrgetter("name")
Damaged = damaged_images.Damaged
PREDICATE = "urn:saltext-immutable:image:1"


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise CommandExecutionError unless all these layers are on this host and undamaged."""
    images.require_layers(host, digests)
    asked = time.time()
    with host.lock("verify", wait=1800.0):
        for digest in digests:
            _layer(host, digest, asked)


def require(host: Host, digest: str, trusted: Sequence[str] | None) -> str:
    """Return the digest of an image. Raise CommandExecutionError unless it is complete, undamaged and signed.

    ``trusted``: the public keys (base64) whose signatures count; None: the signature is not verified.
    """
    return _image(host, digest, trusted, full=False)


def image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read all of an image, also what was verified before; return the number of layers, files and bytes.

    ``verity``: of how many files the kernel checks each read, see `verity.checked`. Raises CommandExecutionError as
    `require` does.
    """
    _image(host, digest, trusted, full=True)
    stack = definition(host, digest)["layers"]
    lines = [line for layer in stack for line in _manifest(host, layer)]
    size = sum(line.get("size", 0) for line in lines)
    checked = verity.checked(host.layers, [host.layers / layer / "fs" for layer in stack])
    return {"layers": len(stack), "files": len(lines), "bytes": size, "verity": checked}


def _image(host: Host, digest: str, trusted: Sequence[str] | None, full: bool) -> str:
    stack = definition(host, digest)["layers"]
    if trusted is not None:
        _require_signed(host, digest, trusted)
    images.lower(host, digest)
    asked = time.time()
    with host.lock("verify", wait=1800.0):
        for layer in stack:
            _layer(host, layer, asked, full)
    return digest


def definition(host: Host, digest: str) -> dict[str, Any]:
    """Return the definition of an image: what its digest is the hash of. Raise `Damaged` if it is not."""
    metadata = images.read(host, digest)
    if not {"recipe", "read_only", "grains", "policy"} <= set(metadata) or manifest.image_digest(metadata) != digest:
        raise damaged_images.of_image(host, digest, "image.json does not match the digest")
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


def damage_of_image(host: Host, digest: str, trusted: Sequence[str]) -> str | None:
    """Return what is wrong with the definition, the seal or the signature of an image on this host, or None.

    An image without a signature is not finished, and one of an untrusted key is not damaged.
    """
    if not images.metadata_file(host, digest).exists():
        return "its definition is missing"
    try:
        definition(host, digest)
        if read_proof(host, digest) is not None:
            _require_signed(host, digest, trusted)
    except Damaged as err:
        return str(err)
    except CommandExecutionError:
        return None
    return None


def seal_manifest(host: Host, digest: str) -> list[dict[str, Any]]:
    """Return the manifest of an image's seal layer."""
    try:
        return list(manifest.entries(images.metadata_file(host, digest).parent / "seal"))
    except OSError as err:
        wrong = f"{err.filename or 'its seal'} cannot be read: {err.strerror}"
        raise damaged_images.of_image(host, digest, wrong) from err


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
        raise damaged_images.of_image(host, digest, f"proof.json, its signature, cannot be read: {err}") from err


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
        raise damaged_images.of_image(host, digest, str(err)) from err


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
    except sign.Invalid as err:
        raise Damaged(f"image {digest[:12]} may not be used: {err}") from err
    except CommandExecutionError as err:
        raise CommandExecutionError(f"image {digest[:12]} may not be used: {err}") from err
    if statement_.get("predicateType") != PREDICATE or statement_["subject"][0]["digest"] != {"sha256": digest}:
        raise Damaged(f"the signature of image {digest[:12]} is for another image; bake its recipe again")
    if statement_["predicate"]["provenance"] != manifest.digest(proof["provenance"]):
        raise Damaged(f"the provenance of image {digest[:12]} is not the one that was signed; bake its recipe again")
    return dict(statement_["predicate"])


# Layers


def _layer(host: Host, digest: str, asked: float, full: bool = False) -> None:
    """Raise `Damaged` unless the layer is what its digest says.

    ``asked``: a verification that began later is not repeated. ``full``: read it even if nothing seems changed.
    """
    last = {} if full else _last_verification(host.layers / digest)
    if last.get("at", 0.0) >= asked:
        return
    at = time.time()
    files = fingerprint(host, digest)  # before the files are read, so that a change meanwhile is found the next time
    if last.get("files") != files and (wrong := list(_differences(_manifest(host, digest), _entries(host, digest)))):
        raise damaged_layer(host, digest, _list(wrong))
    mark_verified(host, digest, files, at)


def _entries(host: Host, digest: str) -> list[dict[str, Any]]:
    try:
        return list(manifest.entries(host.layers / digest / "fs"))
    except OSError as err:
        raise damaged_layer(host, digest, f"{err.filename or 'a file'} cannot be read: {err.strerror}") from err


def fingerprint(host: Host, digest: str) -> str:
    """Return a fingerprint of a layer, which any change of its files changes. The files are not read."""
    folder, found = host.layers / digest, hashlib.sha256()
    try:
        found.update((folder / "manifest.gz").read_bytes())  # images have hard links to it, which change its times
        for path, info in chain([("fs", os.lstat(folder / "fs"))], _walk(str(folder / "fs"))):
            line = f"{path} {info.st_ino} {info.st_ctime_ns} {info.st_size}\n"
            found.update(line.encode(errors="surrogateescape"))
    except OSError:
        return f"incomplete at {time.time_ns()}"
    return found.hexdigest()


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of all files and folders below a folder, sorted."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=_NAME):
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def mark_verified(host: Host, digest: str, files: str, at: float) -> None:
    """Record that a layer was verified. ``files``: its fingerprint; ``at``: when the verification began."""
    record = {"boot": this_boot(), "at": at, "files": files}
    (host.layers / digest / "seen.json").write_text(json.dumps(record))


def _last_verification(folder: Path) -> dict[str, Any]:
    """Return the record of a layer's last verification since the boot, {} where there is none."""
    try:
        found = json.loads((folder / "seen.json").read_text())
        return dict(found) if found["boot"] == this_boot() and found["at"] <= time.time() else {}
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}


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
        f"layer {digest[:12]} is damaged: {what} ({host.layers / digest} on the builder); `salt-run image.bake` of a "
        "recipe that has it sets it aside and builds it again"
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
