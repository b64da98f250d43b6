"""Small disks of systems, made without root and without a loop device: partitions, and file systems in them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
ESP_TYPE = "uefi"
DATA_TYPE = "linux"
_MIB = 1 << 20
_HEAD = _MIB
"""Bytes before the first partition; as many are left after the last."""


def ext4(folder: Path, file: Path, size: int) -> Path:
    """Write an ext4 of ``size`` MiB with the files of a folder."""
    return _made(["mkfs.ext4", "-q", "-F", "-d", folder, file], file, size)


def xfs(file: Path, size: int) -> Path:
    """Write an empty xfs of ``size`` MiB."""
    return _made(["mkfs.xfs", "-q", file], file, size)


def btrfs(folder: Path, file: Path, size: int) -> Path:
    """Write a btrfs of ``size`` MiB with the files of a folder."""
    return _made(["mkfs.btrfs", "-q", "--rootdir", folder, file], file, size)


def _made(command: Sequence[str | Path], file: Path, size: int) -> Path:
    with file.open("wb") as disk:
        disk.truncate(size * _MIB)
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return file


def disk(file: Path, *partitions: tuple[str, Path | bytes], label: str = "gpt") -> Path:
    """Write a raw disk. Each partition has a type, and is a file of a file system or the bytes that it begins with."""
    sizes = [part.stat().st_size if isinstance(part, Path) else _MIB for _, part in partitions]
    with file.open("wb") as raw:
        raw.truncate(2 * _HEAD + sum(sizes))
    script, start = f"label: {label}\n", _HEAD
    for (kind, _), size in zip(partitions, sizes, strict=True):
        script += f"start={start // 512}, size={size // 512}, type={kind}\n"
        start += size
    subprocess.run(["sfdisk", "--quiet", str(file)], input=script, text=True, check=True)
    start = _HEAD
    for (_, part), size in zip(partitions, sizes, strict=True):
        _write(file, start, part)
        start += size
    return file


def _write(file: Path, start: int, part: Path | bytes) -> None:
    if isinstance(part, Path):
        copy = ["dd", f"if={part}", f"of={file}", "bs=1M", f"seek={start // _MIB}", "conv=notrunc,sparse"]
        subprocess.run(copy, check=True, capture_output=True)
        return
    with file.open("r+b") as raw:
        raw.seek(start)
        raw.write(part)


def convert(raw: Path, target: Path, kind: str, *options: str) -> Path:
    """Write a disk in another format."""
    subprocess.run(["qemu-img", "convert", "-O", kind, *options, raw, target], check=True)
    return target
