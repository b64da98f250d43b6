"""What the kernel does for us and Python has no function for: system calls. Standard library only.

The numbers of calls are those of every architecture but alpha (fsopen(2), mount_setattr(2)), those of ioctls are of x86
and ARM.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_CLOSE_ON_EXEC = 1
_CREATE = 6
"""FSCONFIG_CMD_CREATE."""
_CLONE = 1 | os.O_CLOEXEC
"""OPEN_TREE_CLONE and OPEN_TREE_CLOEXEC."""
_EMPTY_PATH = 0x1000
_FROM_DESCRIPTOR = 4
"""MOVE_MOUNT_F_EMPTY_PATH."""
_IDMAP = 0x100000
"""MOUNT_ATTR_IDMAP."""
_HERE, _NO_FOLLOW = -100, 0x100
"""AT_FDCWD and AT_SYMLINK_NOFOLLOW."""
_SYS_ADMIN = 21
"""CAP_SYS_ADMIN."""
_MOUNT_ROOT = 0x2000
"""STATX_ATTR_MOUNT_ROOT."""
_PROC = 0x9FA0
"""PROC_SUPER_MAGIC."""
FLAGS = {"flag.immutable": 0x10, "flag.append-only": 0x20}
"""What ``chattr +i`` and ``+a`` set: STATX_ATTR_IMMUTABLE and STATX_ATTR_APPEND."""

_GET_FLAGS, _SET_FLAGS, _KEEPS = 0x80086601, 0x40086602, 0x30
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of 64-bit machines; FS_IMMUTABLE_FL and FS_APPEND_FL. See ioctl_iflags(2)."""
_ENABLE_VERITY, _MEASURE_VERITY, _VERITY = 0x40806685, 0xC0046686, 0x100000
"""FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY; STATX_ATTR_VERITY. See Documentation/filesystems/fsverity.rst."""
_HOW = struct.pack("=4I112x", 1, 1, 4096, 0)
"""A fsverity_enable_arg: its version, FS_VERITY_HASH_ALG_SHA256, bytes of a block; no salt and no signature."""

_libc = ctypes.CDLL(None, use_errno=True)
_statx = getattr(_libc, "statx", None)


def flags(path: str) -> list[str]:
    """Return those of FLAGS that a file has, which keep it from being changed."""
    attributes = _attributes(path)
    return [name for name, flag in FLAGS.items() if attributes & flag]


def _attributes(path: str) -> int:
    """Return the attributes of a file as statx(2) numbers them; 0 where there are none."""
    found = ctypes.create_string_buffer(256)
    if _statx is None or _statx(_HERE, os.fsencode(path), _NO_FOLLOW, 0, found):
        return 0
    return int.from_bytes(found.raw[8:16], sys.byteorder)


def clear_flags(tree: Path) -> None:
    """Remove FLAGS from all files of a tree."""
    for folder, _, names in os.walk(tree):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            if flags(path):
                _clear(path)
    if not tree.is_dir() and flags(str(tree)):
        _clear(str(tree))


def _clear(path: str) -> None:
    with opened(path) as file:
        found = int.from_bytes(fcntl.ioctl(file, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
        fcntl.ioctl(file, _SET_FLAGS, (found & ~_KEEPS).to_bytes(4, sys.byteorder) + bytes(4))


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Give the descriptor of a file, not of what a link leads to; nothing waits for the other end of a pipe."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def enable_verity(path: str) -> None:
    """Have the kernel check each read of a file from now on; it can never be opened for writing again. Raises OSError.

    EEXIST: it does so already. ETXTBSY: a process has the file open for writing.
    """
    with opened(path) as file:
        fcntl.ioctl(file, _ENABLE_VERITY, _HOW)


def has_verity(path: str) -> bool:
    """Tell whether the kernel checks each read of a file."""
    return bool(_attributes(path) & _VERITY)


def may_have_verity(path: str) -> bool:
    """Tell whether the kernel could check each read of a file: its file system can keep what that needs."""
    try:
        with opened(path) as file:
            fcntl.ioctl(file, _MEASURE_VERITY, struct.pack("=2H64x", 0, 64))
    except OSError as err:
        return err.errno == errno.ENODATA  # this file has none; of other file systems: ENOTTY, EOPNOTSUPP
    return True


def is_covered(path: str) -> bool:
    """Tell whether something is mounted over a path below /proc, or over a folder above it.

    Before Linux 5.8 a part of the same procfs is not seen.
    """
    found = ctypes.create_string_buffer(256)
    while path != "/proc":
        if _libc.statfs(os.fsencode(path), found) or ctypes.c_long.from_buffer(found).value != _PROC:
            return True
        if _attributes(path) & _MOUNT_ROOT:  # another part of a procfs, then
            return True
        path = os.path.dirname(path)
    return False


def may_mount(proc: str) -> bool:
    """Tell whether init has CAP_SYS_ADMIN, without which nothing of a machine is remounted; True if nobody says."""
    found = None
    with suppress(OSError), open(f"{proc}/1/status", encoding="utf-8", errors="replace") as file:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
    return found is None or bool(int(found[1], 16) >> _SYS_ADMIN & 1)


@contextmanager
def fresh_procfs() -> Iterator[str]:
    """Give the path of a procfs that no mount covers, or ``/proc`` where the kernel makes none.

    That is a kernel before 5.2, and a process without CAP_SYS_ADMIN.
    """
    try:
        mount = _procfs()
    except OSError:
        yield "/proc"
        return
    path = f"/proc/self/fd/{mount}"
    try:
        yield path if _leads_to(path, mount) else "/proc"
    finally:
        os.close(mount)


def _leads_to(path: str, descriptor: int) -> bool:
    """Tell whether a path leads to what a descriptor holds; something may be mounted over it."""
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _procfs() -> int:
    """Return the descriptor of a procfs that is mounted nowhere. Raises OSError."""
    file_system = _call(_FSOPEN, b"proc", _CLOSE_ON_EXEC)
    try:
        _call(_FSCONFIG, file_system, _CREATE, None, None, 0)
        return _call(_FSMOUNT, file_system, _CLOSE_ON_EXEC, 0)
    finally:
        os.close(file_system)


def idmapped(folder: str, user_namespace: int) -> int:
    """Return the descriptor of a mount of a folder whose files belong to the ids of a user namespace.

    It is mounted nowhere yet. Raises OSError where the kernel or the file system cannot do it.
    """
    mount = _call(_OPEN_TREE, _HERE, os.fsencode(folder), _CLONE)
    attributes = (ctypes.c_uint64 * 4)(_IDMAP, 0, 0, user_namespace)
    try:
        _call(_MOUNT_SETATTR, mount, b"", _EMPTY_PATH, attributes, ctypes.sizeof(attributes))
    except OSError:
        os.close(mount)
        raise
    return mount


def attach(mount: int, target: str) -> None:
    """Mount what a descriptor holds on a folder. Raises OSError."""
    _call(_MOVE_MOUNT, mount, b"", _HERE, os.fsencode(target), _FROM_DESCRIPTOR)


def bpf(number: int, command: int, attributes: bytes) -> int:
    """Do a command of bpf(2), whose number differs between architectures, and return its result. Raises OSError."""
    return _call(number, command, attributes, len(attributes))


def _call(number: int, *args: int | bytes | ctypes.Array[ctypes.c_uint64] | None) -> int:
    found = int(_libc.syscall(number, *args))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
