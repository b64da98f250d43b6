"""The partitions of a disk, and which of them is the root of its system. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salt.exceptions import CommandExecutionError

MOUNTABLE = {"ext2": "ext4", "ext3": "ext4", "ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs"}
"""File systems that may hold a root, and the driver of the kernel that reads each."""
_ROOTS = {
    *("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "44479540-F297-41B2-9AF7-D131D5F0458A"),  # x86-64, x86
    *("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3"),  # arm64, arm
    *("C31C45E6-3F39-412E-80FB-4809C4980599", "72EC70A6-CF74-40E6-BD49-4BDA08E8F224"),  # ppc64le, riscv64
    "5EEAD9A9-FE09-4A1E-A1D7-520D00531306",  # s390x
}
"""Types of GPT that say that a partition holds a root."""
_WRAPPED = {
    "LVM2_member": "LVM",
    "crypto_LUKS": "encrypted",
    "BitLocker": "encrypted",
    "linux_raid_member": "a part of a RAID",
    "zfs_member": "ZFS",
}
"""What is no file system by itself, as blkid calls it, and in words."""
_DEVICE = re.compile(r"(/dev/|UUID=|LABEL=|PARTUUID=|PARTLABEL=|ID=)", re.IGNORECASE)
_SECTOR = 512


@dataclass(frozen=True)
class Partition:
    """A partition of a disk."""

    number: int
    """0: the disk has no partitions, and this is all of it."""
    start: int
    """Bytes, as the size."""
    size: int
    kind: str = ""
    """Its type: a UUID of GPT, or two digits of an MBR."""
    content: str = ""
    """What blkid finds in it: ext4, vfat, LVM2_member; '' for nothing that it knows."""
    system: str = ""
    """The name of the system whose root it is, from its os-release."""
    problem: str = ""
    """Why it cannot be mounted."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"partition {self.number}" if self.number else "the disk"

    def __str__(self) -> str:
        what = self.system or _WRAPPED.get(self.content, "")
        known = [self.content or "unknown", f"{self.size / 1e6:.0f} MB", *([what] if what else [])]
        return f"{self.number or 'the whole disk'} ({', '.join(known)})"


def read(table: Mapping[str, Any], disk: str) -> list[Partition]:
    """Return the partitions in what ``sfdisk --json`` says of a disk."""
    found = table["partitiontable"]
    sector = int(found.get("sectorsize", _SECTOR))
    return [
        Partition(
            number=int(each["node"].removeprefix(disk).lstrip("p")),
            start=each["start"] * sector,
            size=each["size"] * sector,
            kind=str(each["type"]).upper(),
        )
        for each in found.get("partitions", ())
    ]


def choose(found: Sequence[Partition], wanted: int | None, what: str) -> Partition:
    """Return the partition with the root of the system: the one ``wanted``, the one that has an os-release, or else the
    one whose type in GPT says so.

    Raises CommandExecutionError where that is none or several, or where it cannot be mounted. ``what``: the source.
    """
    if wanted is not None:
        named = [each for each in found if each.number == wanted]
        if not named:
            raise CommandExecutionError(f"{what}: it has no partition {wanted}; name one of {_listed(found)}")
        return _mountable(named[0], found, what)
    roots = [each for each in found if each.system]
    typed = [each for each in roots or found if each.kind in _ROOTS]
    for only in (roots, typed):
        if len(only) == 1:
            return _mountable(only[0], found, what)
    if roots:
        raise CommandExecutionError(
            f"{what}: several partitions hold a root: {_listed(roots)}; write the number of one (partition: NUMBER)"
        )
    for each in found:
        if each.problem or each.content in _WRAPPED:
            _mountable(each, found, what)
    raise CommandExecutionError(
        f"{what}: none of its partitions has an /etc/os-release: {_listed(found)}; name the disk of a Linux system, or "
        "write partition: NUMBER"
    )


def _mountable(one: Partition, found: Sequence[Partition], what: str) -> Partition:
    """Return a partition; raise CommandExecutionError where it cannot be mounted."""
    if one.content in _WRAPPED:
        raise CommandExecutionError(
            f"{what}: {one.name} is {_WRAPPED[one.content]}, and only plain partitions are read; write partition: "
            "NUMBER if another one has the root, else make a tar archive of the mounted system for from: {tarball: "
            "PATH}"
        )
    if one.content not in MOUNTABLE:
        raise CommandExecutionError(
            f"{what}: {one.name} holds {one.content or 'nothing that is known'}, and a root is read from "
            f"{', '.join(MOUNTABLE)}; name another one of {_listed(found)} (partition: NUMBER)"
        )
    if one.problem:
        raise CommandExecutionError(f"{what}: {one.name} ({one.content}) cannot be mounted: {one.problem}")
    return one


def _listed(found: Sequence[Partition]) -> str:
    return ", ".join(map(str, found)) or "none"


def without_devices(fstab: str) -> tuple[str, list[str]]:
    """Return an fstab without the lines about partitions, and the mount points of these lines."""
    kept, gone = [], []
    for line in fstab.splitlines(keepends=True):
        fields = line.split()
        if len(fields) > 1 and _DEVICE.match(fields[0]):
            gone.append(fields[1])
        else:
            kept.append(line)
    return "".join(kept), gone
