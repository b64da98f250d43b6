"""Mount layers as one file system (overlay).

Mount options name layers by short links relative to ``<root>/l``: the options must fit into one page, and with paths of
125 characters 32 layers would be the limit.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from salt.exceptions import CommandExecutionError

MAX_LAYERS = 64
"""Layers in a stack, including the seal."""
_OPAQUE = "trusted.overlay.opaque"
_LOWER = re.compile(r"\blowerdir\+?=([^, ]*)")
_SAFE = "redirect_dir=off,metacopy=off,index=off"


def short(digest: str) -> str:
    """Return the name of a layer's short link."""
    return digest[:16]


def seal_name(digest: str) -> str:
    """Return the short name of the layer with an image's seal."""
    return f"i{short(digest)}"


def options(
    lower: Sequence[str | Path], upper: Path | None = None, work: Path | None = None, volatile: bool = False
) -> str:
    """Return mount options for a stack of layers. Without ``upper`` the mount is read-only.

    ``lower``: root first. ``volatile``: nothing is synced to the disk, so ``upper`` is useless after a crash of this
    host. Raises CommandExecutionError for more than `MAX_LAYERS` layers.
    """
    if len(lower) > MAX_LAYERS:
        raise CommandExecutionError(
            f"{len(lower)} layers are more than the {MAX_LAYERS} that one image may have; build it from fewer recipes"
        )
    stack = ":".join(str(layer) for layer in reversed(lower))
    writable = f",upperdir={upper},workdir={work}" if upper else ""
    no_sync = ",volatile" if upper and volatile and _supports_volatile(platform.release()) else ""
    return f"{_SAFE}{no_sync},lowerdir={stack}{writable}"


def _supports_volatile(release: str) -> bool:
    """Return whether a Linux of this release has the option ``volatile``."""
    return tuple(map(int, re.findall(r"[0-9]+", release)[:2])) >= (5, 10)


def refuse_unstackable(root: Path) -> None:
    """Raise CommandExecutionError if the file system of ``root`` cannot be a layer of an overlay."""
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


_ENDED = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
"""How reading /proc fails for a process that ends meanwhile; EINVAL: it has left its mount namespace."""


def mounted(proc: Path = Path("/proc")) -> set[str]:
    """Return the short names of all layers that are mounted on this host, in any mount namespace."""
    names: set[str] = set()
    seen: set[str] = set()
    for process in proc.glob("[0-9]*"):
        try:
            space = _namespace(process)
            if space not in seen:
                names.update(_lower((process / "mountinfo").read_text()))
                seen.add(space)
        except OSError as err:
            if err.errno not in _ENDED:
                raise
    return names


def _namespace(process: Path) -> str:
    """Return the mount namespace of a process, or something unique where it is not readable."""
    try:
        return os.readlink(process / "ns/mnt")
    except PermissionError:
        return process.name


def _lower(mountinfo: str) -> Iterator[str]:
    """Yield the short names of the layers in the overlay mounts of a mountinfo file."""
    for line in mountinfo.splitlines():
        kind, _, options_ = line.partition(" - ")[2].partition(" ")
        if kind == "overlay":
            for stack in _LOWER.findall(options_):
                paths = (Path(path) for path in stack.split(":") if path)
                yield from (short(path.parent.name if path.name == "fs" else path.name) for path in paths)


def top_file(layers: Path, lower: Sequence[str], path: str) -> Path | None:
    """Return the real path of the regular file ``path`` in a stack of layers; None unless no link leads there."""
    file = _top(layers, lower, path)
    return file if file is not None and file.is_file() and not file.is_symlink() else None


def top_link(layers: Path, lower: Sequence[str], path: str) -> str | None:
    """Return where the link ``path`` in a stack of layers leads; None unless it is one, and no link leads there."""
    link = _top(layers, lower, path)
    return os.readlink(link) if link is not None and link.is_symlink() else None


def _top(layers: Path, lower: Sequence[str], path: str) -> Path | None:
    """Return the real path of what the highest layer has at ``path``, a whiteout perhaps; None: no layer has it."""
    found = (layers / name / path.lstrip("/") for name in _layers_of(layers, lower, os.path.dirname(path.lstrip("/"))))
    return next((each for each in found if os.path.lexists(each)), None)


def top_directory(layers: Path, lower: Sequence[str], path: str) -> Path | None:
    """Return the real path of the directory ``path`` in a stack of layers; None unless it is reached without a link."""
    visible = _layers_of(layers, lower, path)
    return layers / visible[0] / path.lstrip("/") if visible else None


def names(layers: Path, lower: Sequence[str], path: str) -> set[str]:
    """Return what is in a directory of a stack of layers, with what a higher layer deleted there."""
    return {name for layer in _layers_of(layers, lower, path) for name in os.listdir(layers / layer / path.lstrip("/"))}


def _layers_of(layers: Path, lower: Sequence[str], path: str) -> list[str]:
    """Return the layers whose directory ``path`` is visible, the top one first; [] if it is reached by a link."""
    directory, visible = Path("."), list(reversed(lower))
    for name in Path(path.lstrip("/")).parts:
        directory /= name
        visible = _layers_with(layers, visible, directory)
    return visible


def _layers_with(layers: Path, lower: Sequence[str], path: Path) -> list[str]:
    """Return the layers whose directory ``path`` is visible, [] if it is no directory. ``lower``: the top one first."""
    found = []
    for name in lower:
        entry = layers / name / path
        if not os.path.lexists(entry):
            continue
        if entry.is_symlink() or not entry.is_dir():  # or a whiteout
            break
        found.append(name)
        if _OPAQUE in os.listxattr(entry):
            break
    return found
