"""The commands of a builder on whole images: make, find, verify and drop them. Arguments and answers are plain data."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.drift.running.services import programs
from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, sync_directory, write
from saltext.immutable.images import compare, layers, manifest, noexec_mounts, seal_layer, verify
from saltext.immutable.machines import damaged_images, images, overlay
from saltext.immutable.machines import machine as machines

_ID = re.compile(rb'"[gu]id":(\d+)')


def make_image(host: Host, order: Mapping[str, Any], trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Make an image from finished layers and return it as `find_image` does. Idempotent.

    One that is damaged, or has an invalid signature of a key that is ``trusted``, is set aside and made again.

    ``order``: recipe, layers, read_only, grains, policy, salt, pack. Seal and grains are a layer of their own on top of
    the others, so the seal can hold the digest of the image without being part of it. Raises CommandExecutionError
    where a layer is missing or damaged, and where a writable directory of the policy is not in the image.
    """
    digest = manifest.image_digest(order)
    images.require_layers(host, order["layers"])
    _require_directories(host, order)
    about = images.metadata_file(host, digest)
    damaged = about.parent.exists() and verify.damage_of_image(host, digest, trusted)
    if damaged or not about.exists():
        verify.require_layers(host, order["layers"])
        seal = {name: order[name] for name in ("recipe", "read_only", "policy", "salt", "pack")}
        seal |= {"image": digest, "created": time.time()}
        with host.workspace() as work:
            tree = work / "image/seal"
            for path, text in {SEAL_PATH: json.dumps(seal, indent=1), **seal_layer.derived_files(order)}.items():
                file = tree / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                write(file, text)
            seal_layer.add_manifests(host, tree, order)
            seal_layer.copy_folder_metadata(host, tree, order["layers"])
            texts = list(compare.manifests(host, order["layers"]))
            known = {"warnings": _stopped_programs(host, order, texts), "highest_id": _highest_id(texts)}
            write(work / "image" / about.name, json.dumps({**order, **seal, **known}))
            if about.parent.exists():
                damaged_images.set_aside(host, about.parent)  # machines may run on its seal
            (work / "image").rename(about.parent)
            sync_directory(host.images)
    layers.make_link(host, overlay.seal_name(digest), images.seal_target(digest))
    return find_image(host, digest)


def find_image(host: Host, digest: str) -> dict[str, Any]:
    """Return the metadata of an image.

    It also has ``above``, the manifest of the seal layer, and ``proof``: signature and provenance, or None.
    """
    seal = verify.seal_manifest(host, digest)
    return {**images.read(host, digest), "above": seal, "proof": verify.read_proof(host, digest)}


def has_image(host: Host, digest: str, trusted: Sequence[str] | None = None) -> bool:
    """Return whether an image is on this host with its seal and all of its layers, undamaged, and signed.

    ``trusted``: the public keys (base64) whose signatures count; None: the signature is not verified.
    """
    try:
        verify.require(host, digest, trusted)
        return (host.l / overlay.seal_name(digest)).exists() and verify.read_proof(host, digest) is not None
    except CommandExecutionError:
        return False


def keep_proof(host: Host, digest: str, proof: Mapping[str, Any]) -> None:
    """Store the signature and the provenance of an image beside it."""
    verify.keep_proof(host, digest, proof)


def verify_image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read an image in full.

    Raises CommandExecutionError unless it is as one of the public keys ``trusted`` signed it.
    """
    return verify.image(host, digest, trusted)


def _require_directories(host: Host, order: Mapping[str, Any]) -> None:
    """Raise where a directory of the policy is not in the image: machines could not mount it."""
    stack = layers.short_names(order["layers"])
    for path in noexec_mounts.folders(order["policy"]):
        if overlay.top_directory(host.l, stack, path) is None:
            key = "writable" if path in order["policy"]["writable"] else "exec"
            raise CommandExecutionError(
                f"{key}: {path} is no directory of the image, or lies behind a symbolic link; let a state of recipe "
                f"{order['recipe']} make it (file.directory)"
            )


def _highest_id(manifests: Sequence[bytes]) -> int:
    """Return the highest id of a user or a group that a file of these manifests belongs to."""
    return max((int(found) for text in manifests for found in set(_ID.findall(text))), default=0)


def _stopped_programs(host: Host, order: Mapping[str, Any], manifests: Sequence[bytes]) -> list[str]:
    """Return a sentence for each program of an image that its machines would not run."""
    if not noexec_mounts.are_restricted(order["policy"], order["read_only"]):
        return []
    files = compare.files_in(manifests, noexec_mounts.concerned(order["policy"]))
    stack = layers.short_names(order["layers"])
    found = []
    for path in noexec_mounts.unit_files(files):
        if file := overlay.top_file(host.l, stack, path):
            found += [(file.name, program) for program in programs(file.read_text(errors="replace"))]
    return noexec_mounts.warnings(order["policy"], files, found)


def local_images(host: Host) -> dict[str, dict[str, Any]]:
    """Return the metadata of all images of this host, by digest."""
    return images.by_digest(host)


def drop_image(host: Host, digest: str, test: bool = False) -> list[str]:
    """Remove an image and those of its layers that nothing else needs; return the digests of these layers.

    ``test``: remove nothing. Raises CommandExecutionError while machines run the image.
    """
    about, seal = images.metadata_file(host, digest), overlay.seal_name(digest)
    users = [each.minion_id for each in machines.machines(host) if seal in each.lower]
    if users:
        raise CommandExecutionError(
            f"image {digest[:12]} is in use: machines run it: {', '.join(users)}; roll their fleet to another one first"
        )
    if test or not about.exists():
        return []
    stack = images.by_digest(host).get(digest, {"layers": []})["layers"]  # of one that cannot be read, prune finds them
    with host.lock("layers"):
        (host.l / seal).unlink(missing_ok=True)
        host.take_away(about.parent)
    return layers.drop(host, stack)
