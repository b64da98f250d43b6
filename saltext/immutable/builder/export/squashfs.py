"""Export an image as a squashfs. The same files always give the same bytes."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from saltext.immutable.builder.export import tarball, tree
from saltext.immutable.builder.export.programs import piped

LEVEL = 3
"""Compression level of zstd. The default of mksquashfs is 15, which takes five times as long and saves a twentieth."""


def write(
    file: Path,
    layers: Sequence[Path],
    created: float,
    on_entry: tarball.OnEntry = lambda entry: None,
    offset: int = 0,
    compressed: bool = True,
) -> None:
    """Write the merged files of a stack of layers to a file, after its first ``offset`` bytes.

    ``created``: epoch seconds of the image. ``on_entry`` is called with each file.
    """
    entries = tree.merged(layers)
    root = next(entries)  # mksquashfs ignores the root of a tar
    how = [f"-root-mode {stat.S_IMODE(root.info.st_mode):o} -root-uid {root.info.st_uid} -root-gid {root.info.st_gid}"]
    how += ["-reproducible", "-xattrs", "-noappend -quiet -no-progress"]
    how += [f"-comp zstd -Xcompression-level {LEVEL}" if compressed else "-noI -noD -noF -noX"]
    command = ["mksquashfs", "-", str(file), "-tar", "-offset", str(offset), *" ".join(how).split()]
    # mksquashfs limits all times to SOURCE_DATE_EPOCH and gives it to the root (its option -root-time has no effect
    # here). So it must be the latest time of all files.
    latest = max(int(created), *(int(entry.info.st_mtime) for entry in tree.merged(layers)))
    with piped(command, env={"SOURCE_DATE_EPOCH": str(latest)}) as stdin:
        tarball.write(stdin, entries, on_entry)
