"""The initial RAM disk that an exported disk adds to the one that the image has from initramfs-tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files

NAME = "immutable"
"""Value of ``boot=`` on the kernel's command line, and name of our script: see initramfs-tools(7)."""
SCRIPT = r"""
mountroot() {
    # initramfs-tools does not include this module.
    modprobe -d /immutable squashfs
    local_mount_root
    for each in dev proc sys run; do mount -o bind "/$each" "$rootmnt/$each"; done
    chroot "$rootmnt" /usr/bin/python3 -I - </immutable/boot.py || panic "This machine cannot be set up."
    for each in run sys proc dev; do umount "$rootmnt/$each"; done
}
"""
_KINDS = {"directory": 0o040755, "file": 0o100644}


def archive(modules: Mapping[str, bytes], more: Mapping[str, bytes] | None = None) -> bytes:
    """Return a cpio archive with `boot`, the script that starts it, and kernel modules.

    ``modules``: path below /lib/modules -> content. ``more``: further files, by path.
    """
    boot = files("saltext.immutable.builder.export").joinpath("boot.py").read_bytes()
    content = {f"scripts/{NAME}": SCRIPT.encode(), "immutable/boot.py": boot}
    content |= {f"immutable/lib/modules/{path}": text for path, text in modules.items()}
    return cpio(content | dict(more or {}))


def cpio(content: Mapping[str, bytes]) -> bytes:
    """Return files and their directories as a cpio archive in the format that the kernel unpacks ("newc")."""
    entries = [(folder, _KINDS["directory"], b"") for folder in _folders(content)]
    entries += [(path, _KINDS["file"], content[path]) for path in sorted(content)]
    packed = [_entry(number, *entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*packed, _entry(0, "TRAILER!!!", 0, b"")])


def _folders(paths: Iterable[str]) -> list[str]:
    parts = [path.split("/")[:-1] for path in paths]
    return sorted({"/".join(words[:depth]) for words in parts for depth in range(1, len(words) + 1)})


def _entry(number: int, path: str, mode: int, text: bytes) -> bytes:
    """Return one entry of a cpio archive. All owners and times are 0.

    The format is in Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    """
    name = path.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + text + bytes(-len(text) % 4)
