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
    return {found.parent.name: json.loads(found.read_text()) for found in host.images.glob("*/image.json")}


def lower(host: Host, digest: str) -> tuple[str, ...]:
    """Return the short names of all that a machine of an image is mounted from, root first, the seal last."""
    try:
        stack = json.loads(file(host, digest).read_text())["layers"]
    except FileNotFoundError as err:
        raise CommandExecutionError(f"image {digest[:12]} is not on this host; bake its recipe here") from err
    require_layers(host, stack)
    return (*map(overlay.short, stack), seal_link(digest))


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
