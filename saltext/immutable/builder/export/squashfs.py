"""Files as a squashfs: the same files always give the same bytes."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from saltext.immutable.builder.export import tarball, tree
from saltext.immutable.builder.export.programs import fed

LEVEL = 3
"""Of zstd. mksquashfs would take 15, which needs five times as long and saves a twentieth."""


def write(place: Path, layers: Sequence[Path], created: float, seen: tarball.Seen, offset: int = 0) -> None:
    """Write what a machine sees of a stack of layers to a file, after its first ``offset`` bytes."""
    entries = tree.merged(layers)
    root = next(entries)  # of which mksquashfs takes nothing from a tar
    how = [f"-root-mode {stat.S_IMODE(root.info.st_mode):o} -root-uid {root.info.st_uid} -root-gid {root.info.st_gid}"]
    how += ["-reproducible", "-xattrs", f"-comp zstd -Xcompression-level {LEVEL}", "-noappend -quiet -no-progress"]
    command = ["mksquashfs", "-", str(place), "-tar", "-offset", str(offset), *" ".join(how).split()]
    # Its -root-time is without effect here, so the root would be of today. This is the latest time that a file may
    # have, and the root is as old: so it must not be earlier than any.
    latest = max(int(created), *(int(entry.info.st_mtime) for entry in tree.merged(layers)))
    with fed(command, env={"SOURCE_DATE_EPOCH": str(latest)}) as pipe:
        tarball.write(pipe, entries, seen)
