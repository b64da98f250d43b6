"""An image as a disk that boots: what is on it, and where.

Nothing is mounted and no loop device is used: each part is written by a program that knows its format, to its place in
the file. The parts are an EFI system partition (systemd-boot, kernel, initial RAM disks), the root (the same squashfs
as the format ``squashfs`` gives), and a small ext4 for what a machine writes, which `boot` grows.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import boot, initrd, squashfs, tarball, tree
from saltext.immutable.builder.export.programs import fed, find
from saltext.immutable.host import run

_MB = 1 << 20
_SECTOR = 512
_ESP_LEAST = 64 * _MB
"""FAT32 needs 65525 clusters; ours are of one sector."""
_SPARE = 8 * _MB
DATA = 256 * _MB
"""Of the third partition, before it grows."""
_TAIL = _MB
"""For the second partition table."""
# https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
_TYPES = {
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "data": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
}
_READ_ONLY = "GUID:60"
_ARCHITECTURE = "x86_64"
_LOADER = re.compile(r"(usr/)?lib/systemd/boot/efi/systemd-bootx64\.efi")
_KERNEL = re.compile(r"boot/vmlinuz-(?P<version>.+)")
_ADD = "add it to the packages of the recipe (from: {debian: ..., packages: [...]}) or to its states, and bake again"
_NEEDED = {
    r"(usr/)?s?bin/init": ("no init", "systemd-sysv"),
    _KERNEL.pattern: ("no kernel", "linux-image-cloud-amd64 (virtual machines) or linux-image-amd64"),
    r"boot/initrd\.img-.+": ("no initial RAM disk of its kernel", "initramfs-tools"),
    _LOADER.pattern: ("no boot loader", "systemd-boot-efi"),
    r"(usr/)?s?bin/systemd-repart": ("no systemd-repart, which grows the disk", "systemd-repart"),
    r"(usr/)?lib/systemd/systemd-networkd": ("no systemd-networkd, which asks for an address", "systemd"),
}
"""What a disk needs of its image: what to say where it is missing, and the Debian package that brings it."""
PROGRAMS = {"mksquashfs": "squashfs-tools", "sfdisk": "fdisk", "mformat": "mtools", "mke2fs": "e2fsprogs"}
"""What it needs of the builder, and the Debian packages that have it."""
_ENVIRONMENT = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Disk:
    """What is asked for."""

    name: str
    """Of the image, as people write it."""
    digest: str
    created: float
    read_only: bool
    places: Sequence[Path]
    """Its layers, root first, the seal last."""


@dataclass(frozen=True)
class Part:
    """A partition; ``start`` and ``size`` are bytes."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.start + self.size


@dataclass(frozen=True)
class Boot:
    """What boots."""

    version: str
    """Of the kernel."""
    loader: Path
    kernel: Path
    initrd: Path
    modules: Mapping[str, bytes]
    """What mounts the root: files below /lib/modules."""


def require(disk: Disk, entries: Iterable[tree.Entry]) -> Boot:
    """Return what boots an image; raise where it, or this host, lacks what a disk needs."""
    if platform.machine() != _ARCHITECTURE:
        raise CommandExecutionError(f"disks are made for {_ARCHITECTURE} only, and this host is {platform.machine()}")
    if not disk.read_only:
        raise CommandExecutionError(f"{disk.name} has read_only: false, which a disk cannot have; bake it without")
    for program, package in PROGRAMS.items():
        find(program, package)
    return _boot(disk.name, {entry.path: Path(entry.place) for entry in entries})


def _boot(name: str, files: Mapping[str, Path]) -> Boot:
    for pattern, (missing, package) in _NEEDED.items():
        if not any(re.fullmatch(pattern, path) for path in files):
            raise CommandExecutionError(f"{name} has {missing}, so it boots nowhere: {package}; {_ADD}")
    versions = [found["version"] for path in files if (found := _KERNEL.fullmatch(path))]
    version = max((each for each in versions if f"boot/initrd.img-{each}" in files), key=_order, default="")
    if not version:
        raise CommandExecutionError(f"{name} has no /boot/initrd.img-{versions[0]}: initramfs-tools; {_ADD}")
    loader = next(place for path, place in files.items() if _LOADER.fullmatch(path))
    kernel, ram = files[f"boot/vmlinuz-{version}"], files[f"boot/initrd.img-{version}"]
    return Boot(version, loader, kernel, ram, _modules(name, version, files))


def _order(version: str) -> list[tuple[int, str]]:
    """Return what sorts versions of kernels: 6.10 is newer than 6.9."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.findall(r"\d+|\D+", version)]


def _modules(name: str, version: str, files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the kernel's module for squashfs, those that it needs, and the index by which modprobe finds them."""
    for folder in (f"usr/lib/modules/{version}", f"lib/modules/{version}"):
        if f"{folder}/modules.dep.bin" in files:
            needed = _needed(files[f"{folder}/modules.dep"].read_text())
            paths = ["modules.dep.bin", *(path for path in ("modules.builtin.bin",) if f"{folder}/{path}" in files)]
            return {f"{version}/{path}": files[f"{folder}/{path}"].read_bytes() for path in [*paths, *needed]}
    raise CommandExecutionError(f"{name} has no modules of its kernel {version}: linux-image-{version}; {_ADD}")


def _needed(dependencies: str) -> list[str]:
    """Return the files of the module for squashfs, which may be part of the kernel, as modules.dep has them."""
    for line in dependencies.splitlines():
        path, _, others = line.partition(":")
        if re.fullmatch(r"kernel/fs/squashfs/squashfs\.ko(\.\w+)?", path):
            return [path, *others.split()]
    return []


def write(place: Path, disk: Disk, seen: tarball.Seen) -> None:
    """Write the disk to a file that is there and empty."""
    found = require(disk, tree.merged(disk.places))
    content = _esp(disk, found)
    esp = Part("esp", _MB, _esp_size(content))
    squashfs.write(place, disk.places, disk.created, seen, esp.end)
    root = Part("root", esp.end, _whole(os.stat(place).st_size - esp.end))
    data = Part("data", root.end, DATA)
    os.truncate(place, data.end + _TAIL)
    _table(place, disk.digest, [esp, root, data])
    _fill_esp(place, disk, esp, content)
    _make_data(place, disk, data)


def _whole(size: int) -> int:
    """Return whole megabytes."""
    return -(-size // _MB) * _MB


def _esp(disk: Disk, found: Boot) -> dict[str, Path | bytes]:
    """Return what is on the EFI system partition: a file of the image, or bytes."""
    # Ours first: it ends where the kernel looks for another, at a multiple of 4 bytes, which the image's may not.
    entry = [f"title {disk.name}", "linux /immutable/vmlinuz", "initrd /immutable/disk.img"]
    entry += ["initrd /immutable/initrd.img", f"options {options(disk.digest)}"]
    return {
        "EFI/BOOT/BOOTX64.EFI": found.loader,
        # Whoever may edit the command line of the kernel is root.
        "loader/loader.conf": b"timeout 0\neditor no\ndefault immutable.conf\n",
        "loader/entries/immutable.conf": "\n".join([*entry, ""]).encode(),
        "immutable/vmlinuz": found.kernel,
        "immutable/initrd.img": found.initrd,
        "immutable/disk.img": initrd.archive(found.modules),
    }


def options(digest: str) -> str:
    """Return the command line of the kernel; without ``panic=`` who spoils a boot would be given a shell of root."""
    words = [f"root=PARTUUID={boot.part_uuid(digest, 'root')}", "rootfstype=squashfs", "ro", f"boot={initrd.NAME}"]
    return " ".join([*words, "systemd.gpt_auto=0", "panic=30", "console=tty0", "console=ttyS0,115200"])


def _esp_size(content: Mapping[str, Path | bytes]) -> int:
    sizes = [len(each) if isinstance(each, bytes) else each.stat().st_size for each in content.values()]
    return max(_ESP_LEAST, _whole(sum(sizes) + _SPARE))


def _table(place: Path, digest: str, parts: Sequence[Part]) -> None:
    head = ["label: gpt", f"label-id: {boot.part_uuid(digest, 'disk')}", "unit: sectors", "first-lba: 2048"]
    lines = [*head, *(_line(digest, part) for part in parts)]
    how = ["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never"]
    with fed([find("sfdisk", PROGRAMS["sfdisk"]), *how, place]) as pipe:
        pipe.write("\n".join([*lines, ""]).encode())


def _line(digest: str, part: Part) -> str:
    place = f"start={part.start // _SECTOR}, size={part.size // _SECTOR}, type={_TYPES[part.name]}"
    attributes = f', attrs="{_READ_ONLY}"' if part.name == "root" else ""
    return f'{place}, uuid={boot.part_uuid(digest, part.name)}, name="immutable-{part.name}"{attributes}'


def _fill_esp(place: Path, disk: Disk, part: Part, content: Mapping[str, Path | bytes]) -> None:
    drive, environment = f"{place}@@{part.start}", {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(int(disk.created))}
    form = f"-F -c 1 -h 64 -s 32 -T {part.size // _SECTOR} -N {disk.digest[:8]} -v IMMUTABLE"
    run(["mformat", "-i", drive, *form.split(), "::"], env=environment)
    folders = sorted({str(above) for path in content for above in Path(path).parents} - {"."})
    run(["mmd", "-i", drive, *(f"::/{folder}" for folder in folders)], env=environment)
    for path, source in content.items():
        if isinstance(source, bytes):
            with fed(["mcopy", "-i", drive, "-", f"::/{path}"], env=environment) as pipe:
                pipe.write(source)
        else:
            run(["mcopy", "-i", drive, "-m", source, f"::/{path}"], env=environment)


def _make_data(place: Path, disk: Disk, part: Part) -> None:
    identity = boot.part_uuid(disk.digest, "data")
    # A block size of its own, or how far it can grow depended on how small it begins.
    how = ["-q", "-F", "-t", "ext4", "-T", "default", "-b", "4096", "-m", "0", "-L", "immutable-data", "-U", identity]
    how += ["-E", f"offset={part.start},hash_seed={identity},root_owner=0:0,lazy_itable_init=1,nodiscard"]
    times = {"E2FSPROGS_FAKE_TIME": str(int(disk.created)), "SOURCE_DATE_EPOCH": str(int(disk.created))}
    run([find("mke2fs", PROGRAMS["mke2fs"]), *how, place, f"{part.size >> 10}k"], env={**_ENVIRONMENT, **times})
