"""The images on this host: their metadata, and whether their layers are here."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.machines import damaged_images, overlay


def metadata_file(host: Host, digest: str) -> Path:
    """Return the path of an image's metadata. The file exists if the image does."""
    return host.images / digest / "image.json"


def by_digest(host: Host) -> dict[str, dict[str, Any]]:
    """Return the metadata of all images of this host, by digest. Those that cannot be read are left out."""
    found: dict[str, dict[str, Any]] = {}
    for file in host.images.glob("*/image.json"):
        with suppress(damaged_images.Damaged):
            found[file.parent.name] = read(host, file.parent.name)
    return found


def read(host: Host, digest: str) -> dict[str, Any]:
    """Return the metadata of an image. Raises CommandExecutionError if it is missing, `Damaged` if it is unreadable."""
    require_image(host, digest)
    file = metadata_file(host, digest)
    try:
        found = dict(json.loads(file.read_text()))
        return found | {"layers": list(found["layers"])}
    except (KeyError, TypeError, ValueError) as err:
        raise damaged_images.of_image(host, digest, f"{file.name} cannot be read: {err}") from err


def lower(host: Host, digest: str) -> tuple[str, ...]:
    """Return the short names of the layers that a machine of an image mounts, root first, the seal last.

    Raises CommandExecutionError where a layer is missing, and `Damaged` where a short name does not lead to it.
    """
    stack = read(host, digest)["layers"]
    require_layers(host, stack)
    links = [(overlay.short(layer), layer_target(layer)) for layer in stack]
    links.append((overlay.seal_name(digest), seal_target(digest)))
    for name, target in links:
        if (found := leads_to(host, name)) != target:
            wrong = f"leads to {found}, not to {target}" if found else f"to {target} is missing"
            raise damaged_images.Damaged(
                f"image {digest[:12]} may not be used: the link {host.l / name} {wrong}; bake any "
                "recipe (salt-run image.bake), which mends it"
            )
    return tuple(name for name, _ in links)


def require_image(host: Host, digest: str) -> None:
    """Raise CommandExecutionError unless the image is on this host."""
    if not metadata_file(host, digest).exists():
        raise CommandExecutionError(f"image {digest[:12]} is not on this host; bake its recipe here")


def require_layers(host: Host, digests: Sequence[str]) -> None:
    """Raise CommandExecutionError unless all these layers are on this host."""
    for digest in digests:
        if not (host.layers / digest / "layer.json").exists():
            raise CommandExecutionError(
                f"layer {digest[:12]} is not on this host; bake the image again (salt-run image.bake RECIPE), and use "
                "what that gives if it is another image"
            )


def require_links(host: Host, lower: Sequence[str]) -> None:
    """Raise CommandExecutionError unless each of these short names leads to a layer."""
    for name in lower:
        if not (host.l / name).exists():
            raise CommandExecutionError(
                f"layer {name} is gone from this host; bake the image again (salt-run image.bake RECIPE), and use "
                "what that gives if it is another image"
            )


def layer_target(digest: str) -> str:
    """Return where the short link of a layer has to lead."""
    return f"../layers/{digest}/fs"


def seal_target(digest: str) -> str:
    """Return where the short link of the layer with an image's seal has to lead."""
    return f"../images/{digest}/seal"


def leads_to(host: Host, name: str) -> str | None:
    """Return where a short link leads, or None where there is no such link."""
    link = host.l / name
    return os.readlink(link) if link.is_symlink() else None
