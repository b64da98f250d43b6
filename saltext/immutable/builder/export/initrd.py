"""What an exported disk adds to the initial RAM disk that the image has from initramfs-tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files

NAME = "immutable"
"""The kernel is told ``boot=immutable``: initramfs-tools(7), "boot="."""
_SCRIPT = r"""
mountroot() {
    # Not among what initramfs-tools brings.
    modprobe -d /immutable squashfs
    local_mount_root
    for each in dev proc sys run; do mount -o bind "/$each" "$rootmnt/$each"; done
    chroot "$rootmnt" /usr/bin/python3 -I - </immutable/boot.py || panic "This machine cannot be set up."
    for each in run sys proc dev; do umount "$rootmnt/$each"; done
}
"""
_KINDS = {"directory": 0o040755, "file": 0o100644}


def archive(modules: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive with what mounts the root; ``modules``: files below /lib/modules."""
    boot = files("saltext.immutable.builder.export").joinpath("boot.py").read_bytes()
    content = {f"scripts/{NAME}": _SCRIPT.encode(), "immutable/boot.py": boot}
    content |= {f"immutable/lib/modules/{path}": text for path, text in modules.items()}
    return cpio(content)


def cpio(content: Mapping[str, bytes]) -> bytes:
    """Return files, and the directories that they are in, as the kernel unpacks them ("newc")."""
    entries = [(folder, _KINDS["directory"], b"") for folder in _folders(content)]
    entries += [(path, _KINDS["file"], content[path]) for path in sorted(content)]
    packed = [_entry(number, *entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*packed, _entry(0, "TRAILER!!!", 0, b"")])


def _folders(paths: Iterable[str]) -> list[str]:
    parts = [path.split("/")[:-1] for path in paths]
    return sorted({"/".join(words[:depth]) for words in parts for depth in range(1, len(words) + 1)})


def _entry(number: int, path: str, mode: int, text: bytes) -> bytes:
    """See Documentation/driver-api/early-userspace/buffer-format.rst of the kernel; all owners and times are 0."""
    name = path.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + text + bytes(-len(text) % 4)
