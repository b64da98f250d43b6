"""Layers as one file system.

Option strings name layers by short links relative to ``<root>/l``: overlay's options have one page to fit
in, and 125-character paths would stop at 32 layers.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from salt.exceptions import CommandExecutionError

MOST = 64
"""Layers in a stack, the seal included."""
_OPAQUE = "trusted.overlay.opaque"
_LOWER = re.compile(r"\blowerdir\+?=([^, ]*)")
_SAFE = "redirect_dir=off,metacopy=off,index=off"


def short(digest: str) -> str:
    """Return the name of a layer's short link."""
    return digest[:16]


def options(
    lower: Sequence[str | Path], upper: Path | None = None, work: Path | None = None, passing: bool = False
) -> str:
    """Return mount options for layers given root first; without ``upper`` the mount is read-only.

    ``passing``: nobody wants what is in ``upper`` after a crash of this host, so nothing in it waits for the disk.
    """
    if len(lower) > MOST:
        raise CommandExecutionError(f"{len(lower)} layers are more than the {MOST} that one image may have")
    stack = ":".join(str(layer) for layer in reversed(lower))
    writable = f",upperdir={upper},workdir={work}" if upper else ""
    volatile = ",volatile" if upper and passing and _knows_volatile(platform.release()) else ""
    return f"{_SAFE}{volatile},lowerdir={stack}{writable}"


def _knows_volatile(release: str) -> bool:
    """Tell whether a Linux of this release knows overlays that leave it to the end to write to the disk."""
    return tuple(map(int, re.findall(r"\d+", release)[:2])) >= (5, 10)


def refuse_unstackable(root: Path) -> None:
    """Raise if overlays cannot be stacked on the file system of ``root``."""
    kind = _file_system(root)
    if kind in ("overlay", "fuse", "nfs", "vboxsf", "9p"):
        raise CommandExecutionError(
            f"{root} is on a file system of type {kind}, on which layers cannot be stacked; "
            "set immutable:root to a directory on ext4, xfs or btrfs"
        )


def _file_system(path: Path) -> str:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(Path(mount), kind) for _, mount, kind, *_ in mounts if path.resolve().is_relative_to(mount)]
    return max(above, key=lambda entry: len(entry[0].parts))[1]


def mounted(proc: Path = Path("/proc")) -> set[str]:
    """Return the short names of the layers that are mounted anywhere here, in any mount namespace."""
    names: set[str] = set()
    seen: set[str] = set()
    for process in proc.glob("[0-9]*"):
        # A process that ends meanwhile has no mounts any more.
        with suppress(FileNotFoundError, ProcessLookupError):
            space = _namespace(process)
            if space not in seen:
                names.update(_lower((process / "mountinfo").read_text()))
                seen.add(space)
    return names


def _namespace(process: Path) -> str:
    """Return the mount namespace of a process; of one that hides it, what no other has."""
    try:
        return os.readlink(process / "ns/mnt")
    except PermissionError:
        return process.name


def _lower(mountinfo: str) -> Iterator[str]:
    """Yield the layers of the overlays among some mounts, by the names that `options` gives them."""
    for line in mountinfo.splitlines():
        kind, _, options_ = line.partition(" - ")[2].partition(" ")
        if kind == "overlay":
            for stack in _LOWER.findall(options_):
                places = (Path(place) for place in stack.split(":") if place)
                yield from (short(place.parent.name if place.name == "fs" else place.name) for place in places)


def top_file(layers: Path, lower: Sequence[str], path: str) -> Path | None:
    """Return where the regular file ``path`` of a stack of layers really is, or None."""
    for name in reversed(lower):
        file = layers / name / path.lstrip("/")
        if os.path.lexists(file):
            return file if file.is_file() and not file.is_symlink() else None
    return None


def has_directory(layers: Path, lower: Sequence[str], path: str) -> bool:
    """Tell whether ``path`` is a directory of a stack of layers, by no link."""
    place = Path(".")
    below = list(reversed(lower))
    for name in Path(path.lstrip("/")).parts:
        place /= name
        below = _holding(layers, below, place)
        if not below:
            return False
    return True


def _holding(layers: Path, lower: Sequence[str], place: Path) -> list[str]:
    """Return those layers, given from the top, whose directory ``place`` is seen; none if it is anything else."""
    found = []
    for name in lower:
        entry = layers / name / place
        if not os.path.lexists(entry):
            continue
        if entry.is_symlink() or not entry.is_dir():  # a whiteout is none either
            break
        found.append(name)
        if _OPAQUE in os.listxattr(entry):
            break
    return found
