"""Find the Debian package that a file belongs to, in the image's own lists."""

from __future__ import annotations

from collections.abc import Collection

from saltext.immutable.drift import tree
from saltext.immutable.drift.image import Image

_INFO = "var/lib/dpkg/info/"
_MERGED = ("bin/", "lib/", "lib32/", "lib64/", "libx32/", "sbin/")
"""Lists of packages name /bin/sh, and the file is /usr/bin/sh."""


def owners(root: str, image: Image, paths: Collection[str]) -> dict[str, str]:
    """Return path to package for those ``paths`` that belong to one; lists that were changed are not used."""
    searched = set(paths)
    found: dict[str, str] = {}
    for path, entry in image.files.items():
        if not (path.startswith(_INFO) and path.endswith(".list")) or len(found) == len(searched):
            continue
        file = f"{root.rstrip('/')}/{path}"
        if tree.sha256(file) == entry.content:
            package = path.removeprefix(_INFO).removesuffix(".list").partition(":")[0]
            found.update((each, package) for each in _listed(file) & searched)
    return found


def _listed(path: str) -> set[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").lstrip("/") for line in file]
    return {f"usr/{line}" if line.startswith(_MERGED) else line for line in lines}
