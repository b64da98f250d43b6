"""The images whose layers are on this host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.machines import overlay


def file(host: Host, digest: str) -> Path:
    """Return where it stands what an image is made of."""
    return host.images / digest / "image.json"


def every(host: Host) -> dict[str, dict[str, Any]]:
    """Return the images of this host by digest."""
    return {found.parent.name: read(host, found.parent.name) for found in host.images.glob("*/image.json")}


def read(host: Host, digest: str) -> dict[str, Any]:
    """Return what an image is made of, as it stands beside it."""
    require_image(host, digest)
    place = file(host, digest)
    try:
        found = dict(json.loads(place.read_text()))
        return found | {"layers": list(found["layers"])}
    except (KeyError, TypeError, ValueError) as err:
        raise CommandExecutionError(
            f"image {digest[:12]} is damaged: {place.name} cannot be read ({err}); "
            f"remove {place.parent} and bake its recipe again"
        ) from err


def lower(host: Host, digest: str) -> tuple[str, ...]:
    """Return the short names of all that a machine of an image is mounted from, root first, the seal last."""
    stack = read(host, digest)["layers"]
    require_layers(host, stack)
    return (*map(overlay.short, stack), seal_link(digest))


def require_image(host: Host, digest: str) -> None:
    """Raise unless the image is here."""
    if not file(host, digest).exists():
        raise CommandExecutionError(f"image {digest[:12]} is not on this host; bake its recipe here")


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise unless all these layers are here."""
    for digest in digests:
        if not (host.layers / digest / "layer.json").exists():
            raise CommandExecutionError(
                f"layer {digest[:12]} is not on this host; bake the image again to make it anew"
            )


def require_links(host: Host, lower: Sequence[str]) -> None:
    """Raise unless there is a layer behind each of these short names."""
    for name in lower:
        if not (host.l / name).exists():
            raise CommandExecutionError(f"layer {name} is gone from this host; bake the image again to make it anew")


def seal_link(digest: str) -> str:
    """Return the short name of the layer that holds an image's seal."""
    return f"i{overlay.short(digest)}"
