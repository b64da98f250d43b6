"""Images of OCI registries and archives as the lower layers of an image. ``skopeo`` reads them.

What was fetched last for each reference stays in the builder's cache; each layer is verified when it is used.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.sources import program
from saltext.immutable.builder.sources.oci_layer import PROGRAM
from saltext.immutable.host import Host, remove, run, sync_directory, tail
from saltext.immutable.machines.cgroup import Cgroup

CACHE = "oci"
"""Folder of the cache, and name of its lock."""
_KINDS = {"oci-layout": "oci-archive", "manifest.json": "docker-archive"}
"""Member that only such an archive has, and what skopeo calls it."""


def cache_name(reference: str) -> str:
    """Return the name of the cache's folder for a reference."""
    return hashlib.sha256(reference.encode()).hexdigest()


def content(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reference leads to now: ``image``, the digest of its manifest, and ``layers``.

    ``layers``: sha256 of each layer, decompressed, the lowest first. ``order``: oci (the reference), insecure, and
    offline, with which the cache answers. Raises CommandExecutionError where there is no such image.
    """
    image, cached = _digest_in(order["oci"]), _cached(host, order["oci"])
    if cached and (order.get("offline") or cached["image"] == image):
        return cached
    if order.get("offline"):
        raise _not_cached(order["oci"])
    place = _place(order["oci"])
    image = image or f"sha256:{hashlib.sha256(_inspect(order, place, '--raw').encode()).hexdigest()}"
    config = _inspect(order, _pinned(place, image), "--config")
    return {"image": image, "layers": _diff_ids(order["oci"], config)}


def build(
    host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any], lower: Sequence[str]
) -> list[str]:
    """Make ``workspace``/fs from one layer of an image, in the cgroup ``processes``; return warnings.

    ``order``: what, oci, insecure, image, layers (as `content` gives them), number (of the layer, from 0), offline.
    ``lower``: short names of the layers below. Raises CommandExecutionError where the image changed or is damaged.
    """
    layers: list[str] = order["layers"]
    last = order["number"] == len(layers) - 1
    folder = _fetched(host, workspace, order)
    blob = json.loads((folder / "manifest.json").read_text())["layers"][order["number"]]["digest"]
    asked = {"archive": str(folder / blob.partition(":")[2]), "sha256": layers[order["number"]], "last": last}
    asked |= {"workspace": str(workspace), "lower": list(lower), "links": str(host.l), "what": order["what"]}
    return program.call(processes, PROGRAM, asked)


def _fetched(host: Host, workspace: Path, order: Mapping[str, Any]) -> Path:
    """Return the folder of the cache with the image of an order; fetch it first unless it is there."""
    folder: Path = host.cache / CACHE / cache_name(order["oci"])
    folder.parent.mkdir(exist_ok=True)
    with host.lock(f"cache-{CACHE}", wait=1800):
        if _layers_of(folder) == order["layers"]:
            return folder
        if order.get("offline"):
            raise _not_cached(order["oci"])
        new = workspace / "image"
        verify = ["--src-tls-verify=false"] if order.get("insecure") else []
        _skopeo(order["oci"], ["copy", "--quiet", *verify, _pinned(_place(order["oci"]), order["image"]), f"dir:{new}"])
        (new / "image").write_text(order["image"])
        if _layers_of(new) != order["layers"]:
            raise CommandExecutionError(f"{order['oci']} changed while it was fetched; bake again")
        remove(folder)
        new.rename(folder)
        sync_directory(folder.parent)
    return folder


def _digest_in(reference: str) -> str:
    """Return the digest that a reference to a registry names, or ''; the path of a file may have any characters."""
    return "" if reference.startswith("/") else reference.partition("@")[2]


def _cached(host: Host, reference: str) -> dict[str, Any] | None:
    """Return what the cache has for a reference, as `content` does; None where it has nothing that can be read."""
    folder = host.cache / CACHE / cache_name(reference)
    layers = _layers_of(folder)
    with suppress(OSError):
        return {"image": (folder / "image").read_text(), "layers": layers} if layers else None
    return None


def _not_cached(reference: str) -> CommandExecutionError:
    return CommandExecutionError(f"{reference} is not in the cache; bake once with cache=use")


def _layers_of(folder: Path) -> list[str] | None:
    """Return the sha256 of the layers of an image in a folder; None where there is none that can be read."""
    try:
        config = json.loads((folder / "manifest.json").read_text())["config"]["digest"].partition(":")[2]
        return _diff_ids(str(folder), (folder / config).read_text())
    except (CommandExecutionError, KeyError, OSError, TypeError, ValueError):
        return None


def _diff_ids(reference: str, config: str) -> list[str]:
    """Return the sha256 of the layers in the configuration of an image."""
    try:
        found = [one.removeprefix("sha256:") for one in json.loads(config)["rootfs"]["diff_ids"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise CommandExecutionError(f"{reference} is no image with layers of files; name the image of a Linux system")
    return found


def _place(reference: str) -> str:
    """Return a reference in skopeo's words. Raises SaltInvocationError for a path where no image is."""
    if not reference.startswith("/"):
        return f"docker://{reference}"
    path = Path(reference)
    kind = "oci" if (path / "oci-layout").is_file() else _kind_of_archive(path)
    if kind is None:
        raise SaltInvocationError(
            f"from:oci: {reference} on the builder is no OCI archive or folder, and no archive of docker save; correct "
            "the path, or write from: {tarball: PATH} for a plain root"
        )
    return f"{kind}:{path}"


def _kind_of_archive(path: Path) -> str | None:
    try:
        with tarfile.open(path) as archive:
            kinds = (_KINDS.get(member.name.removeprefix("./")) for member in archive)
            return next(filter(None, kinds), None)  # what follows, gigabytes perhaps, is not read
    except (EOFError, OSError, tarfile.TarError):
        return None


def _pinned(place: str, image: str) -> str:
    """Return the place of the image with this digest; an archive holds only one."""
    if not place.startswith("docker://"):
        return place
    name, _, last = place.partition("@")[0].rpartition("/")
    return f"{name}/{last.partition(':')[0]}@{image}"


def _inspect(order: Mapping[str, Any], place: str, what: str) -> str:
    verify = ["--tls-verify=false"] if order.get("insecure") else []
    return _skopeo(order["oci"], ["inspect", what, *verify, place])


def _skopeo(reference: str, words: Sequence[str]) -> str:
    """Run skopeo and return what it prints; its policy file is not asked, since the digest says what is wanted."""
    done = run(["skopeo", "--insecure-policy", *words], check=False)
    if done.returncode:
        said = tail(done.stderr.strip(), 3) or f"skopeo exited with {done.returncode}"
        raise CommandExecutionError(
            f"from:oci: {reference} could not be read: {said}; correct the reference, or let the builder reach the "
            "registry and log in there (skopeo login)"
        )
    return done.stdout
