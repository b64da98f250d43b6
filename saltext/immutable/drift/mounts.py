"""What is mounted over the image."""

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


_FIRST = ("/dev", "/proc", "/run", "/sys")
_OWN_KINDS = ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "vfat", "xfs", "zfs")
"""Not of the network, and not the kernel's own."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    point: str
    kind: str
    """The type of file system."""
    part: str
    """Which part of it is seen there."""
    source: str


def look(proc: str) -> list[Mount]:
    """Return what is mounted for this process; what only init sees, or only we, is as good as mounted for all."""
    found: dict[str, list[Mount]] = {}
    for pid in ("self", "1"):
        with suppress(OSError), open(f"{proc}/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            of_this = [_parsed(line) for line in file]
            for point in {mount.point for mount in of_this}:
                here = [mount for mount in of_this if mount.point == point]
                found[point] = max(found.get(point, []), here, key=len)
    return [mount for here in found.values() for mount in here]


def _parsed(line: str) -> Mount:
    """See proc(5): there are optional fields before the single dash."""
    before, _, after = line.partition(" - ")
    _, _, _, part, point, *_ = before.split()
    kind, source, *_ = [*after.split(), ""]
    return Mount(_plain(point), kind, _plain(part), _plain(source))


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def same_root(proc: str, root: str = "/") -> bool:
    """Tell whether we see the root that init sees; unknown where nobody may ask."""
    try:
        return os.path.samestat(os.stat(f"{proc}/1/root"), os.stat(root))
    except OSError:
        return True


def drift(
    mounts: Iterable[Mount], mutable: Mutable, writable: Collection[str], planned: Collection[str]
) -> Iterator[Item]:
    """Yield what is mounted over the image.

    ``writable``: where a read-only image takes changes; ``planned``: by fstab and units of the image.
    """
    here = list(mounts)
    if ("/proc", "proc") not in {(mount.point, mount.kind) for mount in here}:
        yield Item("mount", "/proc", "it is not the kernel's: nothing that runs can be seen")
    often = Counter(mount.point for mount in here)
    for mount in {each.point: each for each in here}.values():
        known = mount.point in ("/", *_FIRST) or _is_own(mount) or mount.point in planned
        known |= mount.point in writable and mount.kind == "overlay"
        if often[mount.point] > 1 and not _is_process(mount) and not _below(mount, mutable):
            yield Item("mount", mount.point, f"{often[mount.point]} file systems are mounted over each other")
        elif _is_process(mount) or (not known and not _below(mount, mutable)):
            yield Item("mount", mount.point, f"{mount.kind} {mount.source}, its {mount.part}, is mounted over it")


def entered(mounts: Iterable[Mount], known: Collection[str]) -> set[str]:
    """Return those ``known`` mount points below which are files of the machine's own."""
    own = {mount.point for mount in mounts if mount.point in known and mount.kind in _OWN_KINDS}
    return {point for point in own if os.path.isdir(point)}


def _is_own(mount: Mount) -> bool:
    """Tell whether the launch showed this file of its host; what a machine mounts comes from its own overlays."""
    return mount.point == MACHINE_PATH and mount.kind not in ("overlay", "tmpfs", "ramfs")


def _is_process(mount: Mount) -> bool:
    """What is mounted there hides a process."""
    return bool(_PROCESS.match(mount.point))


def _below(mount: Mount, mutable: Mutable) -> bool:
    """Tell whether it is mounted where anything may be; what the kernel and systemd mount first is not."""
    return mount.point not in (MACHINE_PATH, *_FIRST) and mutable.hides(mount.point.strip("/"))


def planned(fstab: str, units: Iterable[str]) -> set[str]:
    """Return the mount points that an fstab and units of the image name; ``units``: names of ``.mount`` files."""
    fields = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    points = {_plain(words[1]) for words in fields if len(words) > 1}
    return points | {_unescaped(unit) for unit in units if unit.endswith(".mount")}


def _unescaped(unit: str) -> str:
    """See systemd-escape(1)."""
    path = "/" + unit.removesuffix(".mount").replace("-", "/")
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)
