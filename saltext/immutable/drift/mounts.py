"""Mounts that hide files of the image or processes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.guard.seal import MACHINE_PATH

_PROCESS = re.compile(r"/proc/(\d+|self|thread-self)(/|$)")
_SYSTEM = ("/dev", "/proc", "/run", "/sys")
_LOCAL_KINDS = ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "vfat", "xfs", "zfs")
"""File systems that are neither of the network nor of the kernel."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    point: str
    kind: str
    """The type of the file system."""
    part: str
    """The folder of the file system that is mounted there: ``/`` or, of a bind mount, another."""
    source: str


def scan(proc: str) -> list[Mount]:
    """Return the mounts that this process or init sees; of both, for each mount point, the longer list."""
    found: dict[str, list[Mount]] = {}
    for pid in ("self", "1"):
        with suppress(OSError), open(f"{proc}/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            seen = [_parsed(line) for line in file]
            for point in {mount.point for mount in seen}:
                at_point = [mount for mount in seen if mount.point == point]
                found[point] = max(found.get(point, []), at_point, key=len)
    return [mount for at_point in found.values() for mount in at_point]


def _parsed(line: str) -> Mount:
    """Parse a line of mountinfo. See proc(5): there are optional fields before the single dash."""
    before, _, after = line.partition(" - ")
    _, _, _, part, point, *_ = before.split()
    kind, source, *_ = [*after.split(), ""]
    return Mount(_plain(point), kind, _plain(part), _plain(source))


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def same_root(proc: str, root: str = "/") -> bool:
    """Tell whether this process has the same root as init; True if that cannot be read."""
    try:
        return os.path.samestat(os.stat(f"{proc}/1/root"), os.stat(root))
    except OSError:
        return True


def drift(
    mounts: Iterable[Mount], mutable: Mutable, writable: Collection[str], planned: Collection[str]
) -> Iterator[Item]:
    """Yield the mounts that hide files of the image.

    ``writable``: mount points of a read-only image's overlays; ``planned``: mount points in its fstab and units.
    """
    mounted = list(mounts)
    if ("/proc", "proc") not in {(mount.point, mount.kind) for mount in mounted}:
        yield Item("mount", "/proc", "it is not the kernel's file system, so processes cannot be seen")
    counts = Counter(mount.point for mount in mounted)
    for mount in {each.point: each for each in mounted}.values():
        known = mount.point in ("/", *_SYSTEM) or _is_of_launch(mount) or mount.point in planned
        known |= mount.point in writable and mount.kind == "overlay"
        if counts[mount.point] > 1 and not _hides_process(mount) and not _is_mutable(mount, mutable):
            yield Item("mount", mount.point, f"{counts[mount.point]} file systems are mounted over each other")
        elif _hides_process(mount) or (not known and not _is_mutable(mount, mutable)):
            yield Item("mount", mount.point, f"{mount.kind} {mount.source} ({mount.part}) is mounted over it")


def to_compare(mounts: Iterable[Mount], known: Collection[str]) -> set[str]:
    """Return those ``known`` mount points that are folders of local file systems."""
    local = {mount.point for mount in mounts if mount.point in known and mount.kind in _LOCAL_KINDS}
    return {point for point in local if os.path.isdir(point)}


def _is_of_launch(mount: Mount) -> bool:
    """Tell whether the launch mounted this file from the host; what a machine mounts comes from its own overlays."""
    return mount.point == MACHINE_PATH and mount.kind not in ("overlay", "tmpfs", "ramfs")


def _hides_process(mount: Mount) -> bool:
    return bool(_PROCESS.match(mount.point))


def _is_mutable(mount: Mount, mutable: Mutable) -> bool:
    """Tell whether the mount point may differ; those that the kernel and systemd mount at the start may not."""
    return mount.point not in (MACHINE_PATH, *_SYSTEM) and mutable.may_differ(mount.point.strip("/"))


def planned(fstab: str, units: Iterable[str]) -> set[str]:
    """Return the mount points in the text of an fstab and of units; ``units``: names of ``.mount`` files."""
    fields = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    points = {_plain(words[1]) for words in fields if len(words) > 1}
    return points | {_unescaped(unit) for unit in units if unit.endswith(".mount")}


def _unescaped(unit: str) -> str:
    """Return the mount point of a unit's name. See systemd-escape(1)."""
    path = "/" + unit.removesuffix(".mount").replace("-", "/")
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)
