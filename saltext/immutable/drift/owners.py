"""Find the package that a file belongs to, in the image's own lists: those of dpkg, or the database of rpm."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable import rpm
from saltext.immutable.drift import tree
from saltext.immutable.drift.image import Image

_INFO = "var/lib/dpkg/info/"
_RPM = "usr/bin/rpm"
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
    return found if len(found) == len(searched) else {**_of_rpm(root, image, searched), **found}


def _of_rpm(root: str, image: Image, searched: Collection[str]) -> dict[str, str]:
    """Return path to package by the database of rpm, if that and rpm itself are as the image has them."""

    def find(path: str) -> Path | None:
        entry, file = image.files.get(path), Path(root, path)
        return file if entry and entry.kind == "file" and tree.sha256(str(file)) == entry.content else None

    if not find(_RPM):
        return {}
    with suppress(CommandExecutionError):
        found = ((_merged(path.lstrip("/")), name) for path, name in rpm.files(find))
        return {path: name for path, name in found if path in searched}
    return {}


def _listed(path: str) -> set[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").lstrip("/") for line in file]
    return set(map(_merged, lines))


def _merged(path: str) -> str:
    return f"usr/{path}" if path.startswith(_MERGED) else path
