"""Damaged layers and images of this host: the error that names one, and the place where they are set aside."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host
from saltext.immutable.machines import overlay


class Damaged(CommandExecutionError):  # type: ignore[misc]
    """A layer or an image is not what its digest or its signature says."""


def of_image(host: Host, digest: str, what: str) -> Damaged:
    """Return the error for a damaged image, with what to do. ``what``: what is wrong."""
    return Damaged(
        f"image {digest[:12]} is damaged: {what} ({host.images / digest} on the builder); `salt-run image.bake` of its "
        "recipe sets it aside and makes it again"
    )


def list_set_aside(host: Host) -> list[Path]:
    """Return the folders of damaged layers and images that were set aside."""
    return sorted(host.damaged.iterdir()) if host.damaged.is_dir() else []


def runs_on(folder: Path, lower: Collection[str], born: float) -> bool:
    """Tell whether a machine runs on what was set aside in a folder.

    ``lower``: short names of its layers; ``born``: when it was launched (epoch seconds).
    """
    digest, _, since = folder.name.partition(".")
    return born <= float(since) and not {overlay.short(digest), overlay.seal_name(digest)}.isdisjoint(lower)


def set_aside(host: Host, folder: Path) -> None:
    """Set a damaged layer or image aside. Machines that run on it go on: its files stay while one of them is there."""
    folder.rename(host.damaged / f"{folder.name}.{time.time()}")
