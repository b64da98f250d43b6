"""The images on this host: their metadata, and whether their layers are here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.machines import overlay


def metadata_file(host: Host, digest: str) -> Path:
    """Return the path of an image's metadata. The file exists if the image does."""
    return host.images / digest / "image.json"


def by_digest(host: Host) -> dict[str, dict[str, Any]]:
    """Return the metadata of all images of this host, by digest."""
    return {found.parent.name: read(host, found.parent.name) for found in host.images.glob("*/image.json")}


def read(host: Host, digest: str) -> dict[str, Any]:
    """Return the metadata of an image. Raises CommandExecutionError where it is missing or damaged."""
    require_image(host, digest)
    file = metadata_file(host, digest)
    try:
        found = dict(json.loads(file.read_text()))
        return found | {"layers": list(found["layers"])}
    except (KeyError, TypeError, ValueError) as err:
        raise CommandExecutionError(
            f"image {digest[:12]} is damaged: {file.name} cannot be read ({err}); "
            f"remove {file.parent} and bake its recipe again"
        ) from err


def lower(host: Host, digest: str) -> tuple[str, ...]:
    """Return the short names of the layers that a machine of an image mounts, root first, the seal last.

    Raises CommandExecutionError where one of them is missing.
    """
    stack = read(host, digest)["layers"]
    require_layers(host, stack)
    return (*map(overlay.short, stack), seal_link(digest))


def require_image(host: Host, digest: str) -> None:
    """Raise CommandExecutionError unless the image is on this host."""
    if not metadata_file(host, digest).exists():
        raise CommandExecutionError(f"image {digest[:12]} is not on this host; bake its recipe here")


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise CommandExecutionError unless all these layers are on this host."""
    for digest in digests:
        if not (host.layers / digest / "layer.json").exists():
            raise CommandExecutionError(
                f"layer {digest[:12]} is not on this host; bake the image again (salt-run image.bake RECIPE)"
            )


def require_links(host: Host, lower: Sequence[str]) -> None:
    """Raise CommandExecutionError unless each of these short names leads to a layer."""
    for name in lower:
        if not (host.l / name).exists():
            raise CommandExecutionError(
                f"layer {name} is gone from this host; bake the image again (salt-run image.bake RECIPE)"
            )


def seal_link(digest: str) -> str:
    """Return the short name of the layer with an image's seal."""
    return f"i{overlay.short(digest)}"
