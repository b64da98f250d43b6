"""The disks of a machine with a kernel of its own: one that takes the changes, and one that keeps apt's downloads."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from saltext.immutable.builder.export.programs import find
from saltext.immutable.host import Host, remove, run
from saltext.immutable.machines import overlay
from saltext.immutable.machines.cgroup import Cgroup

FOLDER = "vm"
"""Folder of a workspace for what the machine is made from."""
_CHANGES, _CACHE = "changes.ext4", "cache.ext4"
_CHANGES_SIZE, _CACHE_SIZE = 64 << 30, 16 << 30
"""Bytes, as far as they are used: the files have holes."""
_EXT4 = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
_BEYOND_REPAIR = 4
"""Exit code of e2fsck where errors are left."""
_TAKE = """
mount -o loop "$1" "$2"
cp --archive "$2/upper/." "$3"
"""


def for_changes(host: Host, folder: Path, lower: Sequence[str]) -> Path:
    """Return a new disk for the changes. The folder that takes them has owner and mode of the image's root."""
    content = folder / "changes"
    for name in ("upper", "work"):
        (content / name).mkdir(parents=True)
    root = overlay.top_directory(host.l, lower, "/")
    if root is not None:
        info = root.stat()
        os.chown(content / "upper", info.st_uid, info.st_gid)
        (content / "upper").chmod(stat.S_IMODE(info.st_mode))
    _make(folder / _CHANGES, _CHANGES_SIZE, ["-d", str(content)])
    remove(content)
    return folder / _CHANGES


def for_downloads(host: Host, bake_id: str) -> Path:
    """Return the disk that keeps apt's downloads. One that a kill left beyond repair is made anew."""
    file = host.cache / "apt" / bake_id / _CACHE
    file.parent.mkdir(parents=True, exist_ok=True)
    mended = file.exists() and run([find("e2fsck", "e2fsprogs"), "-p", file], check=False).returncode < _BEYOND_REPAIR
    if not mended:
        file.unlink(missing_ok=True)
        _make(file, _CACHE_SIZE)
    return file


def _make(file: Path, size: int, options: Sequence[str] = ()) -> None:
    file.touch(mode=0o600)
    os.truncate(file, size)
    run([find("mke2fs", "e2fsprogs"), *_EXT4, *options, file])


def take_changes(workspace: Path, processes: Cgroup) -> None:
    """Move what the machine changed into the folder ``fs`` of a workspace, once it has shut down.

    The disk is mounted where nobody else sees it, by processes that a kill of the bake ends with it.
    """
    target, place = workspace / "fs", workspace / FOLDER / "mounted"
    remove(target)
    target.mkdir(mode=0o755)
    place.mkdir()
    command = ["unshare", "--mount", "--propagation=private", "/bin/sh", "-ec", _TAKE, "sh"]
    run([*processes.start_command(), *command, workspace / FOLDER / _CHANGES, place, target])
    remove(workspace / FOLDER)
