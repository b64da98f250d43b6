"""Export an image as a disk that boots.

Nothing is mounted and no loop device is used: programs that know the formats write each partition to its offset in the
file. The partitions are an EFI system partition (systemd-boot, kernel, initial RAM disks), the root (the squashfs of
the format ``squashfs``), and a small ext4 for what a machine writes, which `boot` grows.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import boot, initrd_archive, kernel, squashfs, tarball, tree
from saltext.immutable.builder.export.programs import find, piped
from saltext.immutable.host import run

_MB = 1 << 20
_SECTOR = 512
_ESP_MIN = 64 * _MB
"""FAT32 needs at least 65525 clusters; ours have one sector each."""
_ESP_SPARE = 8 * _MB
DATA = 256 * _MB
"""Bytes of the third partition before it grows."""
_TAIL = _MB
"""Bytes at the end for the second partition table."""
# https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
_TYPES = {
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "data": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
}
_READ_ONLY = "GUID:60"
_ARCHITECTURE = "x86_64"
_LOADER = re.compile(r"(usr/)?lib/systemd/boot/efi/systemd-bootx64\.efi")
_MODULES = ("squashfs",)
"""Kernel modules that mount the root and that initramfs-tools does not include."""
_REQUIRED = {
    r"(usr/)?s?bin/init": ("no init", "systemd-sysv"),
    **kernel.REQUIRED,
    _LOADER.pattern: ("no boot loader", "systemd-boot-efi"),
    r"(usr/)?s?bin/systemd-repart": ("no systemd-repart, which grows the disk", "systemd-repart"),
    r"(usr/)?lib/systemd/systemd-networkd": ("no systemd-networkd, which asks for an address", "systemd"),
}
"""Files that a disk needs of its image, by path -> (what is missing without one, the Debian package that has it)."""
PROGRAMS = {"mksquashfs": "squashfs-tools", "sfdisk": "fdisk", "mformat": "mtools", "mke2fs": "e2fsprogs"}
"""Programs that a disk needs on the builder -> the Debian packages that have them."""
_ENVIRONMENT = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Disk:
    """The image to export."""

    name: str
    """``web@3f2a9c1d04be``"""
    digest: str
    created: float
    read_only: bool
    layers: Sequence[Path]
    """Root first, the seal last."""


@dataclass(frozen=True)
class Part:
    """A partition. ``start`` and ``size`` are bytes."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


@dataclass(frozen=True)
class Boot:
    """The files of an image that boot it."""

    loader: Path
    kernel: kernel.Kernel
    modules: Mapping[str, bytes]
    """The kernel modules that mount the root: path below /lib/modules -> content."""


def require(disk: Disk, entries: Iterable[tree.Entry]) -> Boot:
    """Return the files that boot an image.

    Raise CommandExecutionError where the image or this host lacks what a disk needs.

    ``entries``: all files of the image.
    """
    if platform.machine() != _ARCHITECTURE:
        raise CommandExecutionError(
            f"disks are made for {_ARCHITECTURE} only, and this host is {platform.machine()}; use another builder"
        )
    if not disk.read_only:
        raise CommandExecutionError(
            f"{disk.name} has read_only: false, which a disk cannot have; remove it from the recipe and bake again"
        )
    for program, package in PROGRAMS.items():
        find(program, package)
    return _boot(disk.name, {entry.path: Path(entry.source) for entry in entries})


def _boot(name: str, files: Mapping[str, Path]) -> Boot:
    kernel.require(name, files, _REQUIRED)
    found = kernel.find(name, files)
    loader = next(source for path, source in files.items() if _LOADER.fullmatch(path))
    return Boot(loader, found, kernel.modules(name, found.version, files, _MODULES))


def write(file: Path, disk: Disk, on_entry: tarball.OnEntry) -> None:
    """Write the disk to an existing, empty file. ``on_entry`` is called with each file of the image."""
    found = require(disk, tree.merged(disk.layers))
    content = _esp(disk, found)
    esp = Part("esp", _MB, _esp_size(content))
    squashfs.write(file, disk.layers, disk.created, on_entry, esp.end)
    root = Part("root", esp.end, _round_up(os.stat(file).st_size - esp.end))
    data = Part("data", root.end, DATA)
    os.truncate(file, data.end + _TAIL)
    _table(file, disk.digest, [esp, root, data])
    _fill_esp(file, disk, esp, content)
    _make_data(file, disk, data)


def _round_up(size: int) -> int:
    """Return a size rounded up to whole megabytes."""
    return -(-size // _MB) * _MB


def _esp(disk: Disk, found: Boot) -> dict[str, Path | bytes]:
    """Return the content of the EFI system partition: path -> a file of the image, or bytes."""
    # Our RAM disk first: the kernel expects the next one at a multiple of 4 bytes, where the image's may not end.
    entry = [f"title {disk.name}", "linux /immutable/vmlinuz", "initrd /immutable/disk.img"]
    entry += ["initrd /immutable/initrd.img", f"options {options(disk.digest)}"]
    return {
        "EFI/BOOT/BOOTX64.EFI": found.loader,
        # Without an editor: it could change the kernel's command line, and so give a root shell.
        "loader/loader.conf": b"timeout 0\neditor no\ndefault immutable.conf\n",
        "loader/entries/immutable.conf": "\n".join([*entry, ""]).encode(),
        "immutable/vmlinuz": found.kernel.vmlinuz,
        "immutable/initrd.img": found.kernel.initrd,
        "immutable/disk.img": initrd_archive.archive(found.modules),
    }


def options(digest: str) -> str:
    """Return the kernel's command line.

    ``panic=`` reboots after a failed boot, which would otherwise offer a root shell.
    """
    words = [f"root=PARTUUID={boot.part_uuid(digest, 'root')}", "rootfstype=squashfs", "ro"]
    words += [f"boot={initrd_archive.NAME}", "systemd.gpt_auto=0", "panic=30"]
    return " ".join([*words, "console=tty0", "console=ttyS0,115200"])


def _esp_size(content: Mapping[str, Path | bytes]) -> int:
    sizes = [len(each) if isinstance(each, bytes) else each.stat().st_size for each in content.values()]
    return max(_ESP_MIN, _round_up(sum(sizes) + _ESP_SPARE))


def _table(file: Path, digest: str, parts: Sequence[Part]) -> None:
    head = ["label: gpt", f"label-id: {boot.part_uuid(digest, 'disk')}", "unit: sectors", "first-lba: 2048"]
    lines = [*head, *(_line(digest, part) for part in parts)]
    how = ["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never"]
    with piped([find("sfdisk", PROGRAMS["sfdisk"]), *how, file]) as stdin:
        stdin.write("\n".join([*lines, ""]).encode())


def _line(digest: str, part: Part) -> str:
    extent = f"start={part.start // _SECTOR}, size={part.size // _SECTOR}, type={_TYPES[part.name]}"
    attributes = f', attrs="{_READ_ONLY}"' if part.name == "root" else ""
    return f'{extent}, uuid={boot.part_uuid(digest, part.name)}, name="immutable-{part.name}"{attributes}'


def _fill_esp(file: Path, disk: Disk, part: Part, content: Mapping[str, Path | bytes]) -> None:
    drive, environment = f"{file}@@{part.start}", {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(int(disk.created))}
    form = f"-F -c 1 -h 64 -s 32 -T {part.size // _SECTOR} -N {disk.digest[:8]} -v IMMUTABLE"
    run(["mformat", "-i", drive, *form.split(), "::"], env=environment)
    folders = sorted({str(above) for path in content for above in Path(path).parents} - {"."})
    run(["mmd", "-i", drive, *(f"::/{folder}" for folder in folders)], env=environment)
    for path, source in content.items():
        if isinstance(source, bytes):
            with piped(["mcopy", "-i", drive, "-", f"::/{path}"], env=environment) as stdin:
                stdin.write(source)
        else:
            run(["mcopy", "-i", drive, "-m", source, f"::/{path}"], env=environment)


def _make_data(file: Path, disk: Disk, part: Part) -> None:
    identity = boot.part_uuid(disk.digest, "data")
    # With a fixed block size, because the default depends on the size, and limits how far it can grow.
    how = ["-q", "-F", "-t", "ext4", "-T", "default", "-b", "4096", "-m", "0", "-L", "immutable-data", "-U", identity]
    how += ["-E", f"offset={part.start},hash_seed={identity},root_owner=0:0,lazy_itable_init=1,nodiscard"]
    times = {"E2FSPROGS_FAKE_TIME": str(int(disk.created)), "SOURCE_DATE_EPOCH": str(int(disk.created))}
    run([find("mke2fs", PROGRAMS["mke2fs"]), *how, file, f"{part.size >> 10}k"], env={**_ENVIRONMENT, **times})
