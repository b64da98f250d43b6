"""A program: copy the root of a system out of a raw disk, in a mount namespace that ends with it.

Partitions are mounted read-only, each by a loop device that the kernel frees with its last mount.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.sources import partitions, program, roots
from saltext.immutable.builder.sources.partitions import MOUNTABLE, Partition
from saltext.immutable.builder.sources.unpack import printable
from saltext.immutable.host import remove, run

PROGRAM = "saltext.immutable.builder.sources.copy_disk_root"
_RELEASE = ("etc/os-release", "usr/lib/os-release")
_NAME = re.compile(r'^PRETTY_NAME="?([^"\n]*)', re.MULTILINE)
_SUBVOLUMES = ("", "root", "@", "@rootfs")
"""Where installers put the root in btrfs; '' is the subvolume that is mounted by default."""
_OPTIONS = {"ext4": ["errors=continue"], "xfs": ["nouuid"]}
"""errors: a damaged file system may say in itself that the kernel of this host shall panic then.

nouuid: a file system of the same id may be mounted on this host, that of the template for example.
"""
_NAMED_WITHIN = 1 << 16
"""Bytes of an os-release that are read, however large it is."""
_UNNEEDED = ("/", "none", "swap", "/boot/efi", "/efi")
"""Mount points of fstab whose partitions nobody misses in an image."""


def apply(order: dict[str, Any]) -> list[str]:
    """Copy the root of a disk; return warnings.

    ``order``: disk (the path of a raw file), workspace (its folder ``fs`` takes the root), partition, and what.
    """
    workspace, disk, wanted = Path(order["workspace"]), order["disk"], order["partition"]
    place, tree = workspace / "mounted", workspace / "fs"
    place.mkdir()
    looked = [_looked_into(disk, each, place, wanted) for each in _partitions(disk)]
    one = partitions.choose(looked, wanted, order["what"])
    with _mounted(disk, one, place):
        root = _root(place, one)
        missing = _without_partitions(root, order["what"])
        run(["cp", "--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--", root, tree])
    _tidy(tree, order["what"])
    warnings = roots.finish(tree, order["what"])
    if missing:
        gone = ", ".join(missing)
        warnings.append(f"{order['what']}: what its other partitions have in {gone} is not in the image")
    return warnings


def _partitions(disk: str) -> list[Partition]:
    """Return the partitions of a disk, with what blkid finds in each; a disk without any is one itself."""
    done = run(["sfdisk", "--json", disk], check=False)
    found = [Partition(0, 0, os.stat(disk).st_size)]
    if not done.returncode:
        found = partitions.read(json.loads(done.stdout), disk)
    return [replace(each, content=_content(disk, each)) for each in found]


def _content(disk: str, one: Partition) -> str:
    where = [f"--offset={one.start}", f"--size={one.size}"]
    done = run(["blkid", "--probe", *where, "--match-tag=TYPE", "--output=value", disk], check=False)
    return done.stdout.strip()


def _looked_into(disk: str, one: Partition, place: Path, wanted: int | None) -> Partition:
    """Return a partition with the system whose root it is, or why it cannot be mounted."""
    if one.content not in MOUNTABLE or wanted not in (None, one.number):
        return one
    try:
        with _mounted(disk, one, place):
            return replace(one, system=_system(_root(place, one)))
    except CommandExecutionError as err:
        return replace(one, problem=str(err))
    except OSError as err:
        return replace(one, problem=f"{err.strerror}; check the file system (fsck)")


@contextmanager
def _mounted(disk: str, one: Partition, place: Path) -> Iterator[None]:
    kind = MOUNTABLE[one.content]
    options = ["loop", "ro", "nodev", "nosuid", "noexec", f"offset={one.start}", f"sizelimit={one.size}"]
    more = ",".join([*options, *_OPTIONS.get(kind, [])])
    done = run(["mount", f"--types={kind}", f"--options={more}", disk, place], check=False)
    if done.returncode:
        raise _unmounted(kind, done.stderr.strip().partition("\n")[0].rstrip("."))
    try:
        yield
    finally:
        run(["umount", place])


def _unmounted(kind: str, said: str) -> CommandExecutionError:
    """Return the error for what mount said."""
    if f"unknown filesystem type '{kind}'" in said:
        return CommandExecutionError(
            f"the kernel of the builder has no {kind}; let it load that module (modprobe {kind}), or make a tar "
            "archive of the root for from: {tarball: PATH}"
        )
    if "loop" in said and "superblock" not in said and "read-only" not in said:
        return CommandExecutionError(f"mount says: {said}; let the builder have loop devices (modprobe loop)")
    return CommandExecutionError(
        f"mount says: {said}; check the file system (where the system was not shut down cleanly: start the disk once, "
        "and shut it down)"
    )


def _root(place: Path, one: Partition) -> Path:
    """Return the folder that has the root, in btrfs perhaps that of a subvolume."""
    inner = _SUBVOLUMES if one.content == "btrfs" else ("",)
    folders = (place / name for name in inner if not (place / name).is_symlink())  # it might lead to this host's root
    return next((folder for folder in folders if _release(folder)), place)


def _release(root: Path) -> Path | None:
    """Return the os-release of a root, unless a link leads out of it."""
    found = (root / name for name in _RELEASE)
    return next((file for file in found if file.is_file() and file.resolve().is_relative_to(root.resolve())), None)


def _system(root: Path) -> str:
    file = _release(root)
    named = _NAME.search(_beginning(file)) if file else None
    return printable(named[1]) if named else "a system without a name" if file else ""


def _beginning(file: Path) -> str:
    with file.open(errors="replace") as stream:
        return stream.read(_NAMED_WITHIN)


def _without_partitions(root: Path, what: str) -> list[str]:
    """Return where the system mounts other partitions that the image lacks.

    Raises CommandExecutionError where these are /usr or /var, without which there is no root.
    """
    _, points = partitions.without_devices(_fstab(root))
    device = root.stat().st_dev
    apart = [name for name in ("usr", "var") if (root / name).is_dir() and (root / name).stat().st_dev != device]
    if lost := [*(point for point in ("/usr", "/var") if point in points), *(f"/{name}" for name in apart)]:
        raise CommandExecutionError(
            f"{what}: its {lost[0]} is on another partition or subvolume, and only that of the root is copied; make a "
            "tar archive of the mounted system for from: {tarball: PATH}"
        )
    return [point for point in dict.fromkeys(points) if point not in _UNNEEDED]


def _fstab(root: Path) -> str:
    file = root / "etc/fstab"
    own = file.is_file() and file.resolve() == root.resolve() / "etc/fstab"  # a link might lead to this host's file
    return file.read_text(errors="surrogateescape") if own else ""


def _tidy(tree: Path, what: str) -> None:
    """Remove what belongs to the disk: lines of fstab, devices, sockets, what a check of the file system found."""
    text, points = partitions.without_devices(_fstab(tree))
    if points:
        (tree / "etc/fstab").write_text(text, errors="surrogateescape")
    remove(tree / "lost+found")
    if (tree / "dev").is_dir() and not (tree / "dev").is_symlink():
        for entry in (tree / "dev").iterdir():
            remove(entry)
    for folder, _, names in os.walk(tree):
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            _tidy_file(path, f"{what}: /{printable(os.path.relpath(path, tree))}")


def _tidy_file(path: str, name: str) -> None:
    """Remove a socket. Raise CommandExecutionError for what no image may have; ``name``: how the message names it."""
    mode = os.lstat(path).st_mode
    if stat.S_ISSOCK(mode):
        os.unlink(path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise CommandExecutionError(f"{name} is a device, which no image may have; remove it from the disk")
    else:
        roots.require_no_layer(path, name)


if __name__ == "__main__":
    sys.exit(program.main(apply))
