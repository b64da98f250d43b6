"""fs-verity: the kernel checks each read of a file of an image against the hashes that it took at the commit.

`enable` is called for every tree that becomes a layer or a seal, before it gets its name: in `layers.commit` and
`seal_layer.add_manifests`. What is set aside is renamed, and keeps it. It covers the content of each file alone: a file
can still be replaced as a whole, and names, modes and owners can be changed. What `verify` lists before each use finds
that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from saltext.immutable import kernel

_NOWHERE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENOPKG, errno.EROFS)
"""No file of the file system can have it: it has none, or not with blocks of this size or with this hash."""


def enable(tree: Path) -> str:
    """Have the kernel check each read of the files of a tree, where it can; return why it cannot, or ''.

    Where the file system has no fs-verity, that is known after the first file. A file that cannot have it (somebody
    writes to it, `chattr +i`, no space) is left as it is. Nobody else may use the tree: times of its files change for a
    moment.
    """
    for path, info in _files(tree):
        try:
            kernel.enable_verity(path)
        except OSError as err:
            if err.errno in _NOWHERE:
                return f"{path}: {err.strerror}"
            continue
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)  # ext4 sets it to now
    return ""


def checked(folder: Path, trees: Sequence[Path]) -> dict[str, Any]:
    """Return of how many ``files`` of trees the kernel checks each read, and ``why`` not of all, or ''.

    ``folder``: where the trees are, for people. Links to the same file count once, empty files do not.
    """
    files, left = 0, []
    for path, _ in chain.from_iterable(map(_files, trees)):
        try:
            has = kernel.has_verity(path)
        except FileNotFoundError:  # the layer is set aside meanwhile
            continue
        files += has
        left += [] if has else [path]
    return {"files": files, "why": _why(folder, left) if left else ""}


def _why(folder: Path, left: Sequence[str]) -> str:
    """Return why the kernel does not check each read of some files."""
    if not kernel.may_have_verity(left[0]):
        return (
            f"the file system of {folder} has no fs-verity (ext4, btrfs and f2fs can have it; ext4 gets it by "
            "tune2fs -O verity DEVICE)"
        )
    return (
        f"{len(left)} files have no fs-verity: a layer gets it at its commit, and these were committed before their "
        "file system had it, or when it was full"
    )


def _files(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of each file that is regular and not empty; of several links to one, the first."""
    seen: set[tuple[int, int]] = set()
    for folder, _, names in os.walk(tree):
        for path in (os.path.join(folder, name) for name in names):
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_size and (info.st_dev, info.st_ino) not in seen:
                if info.st_nlink > 1:
                    seen.add((info.st_dev, info.st_ino))
                yield path, info
