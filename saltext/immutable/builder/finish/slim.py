"""Take out of a layer what no machine needs to run: documentation, other languages, caches, tests of Salt's packages.

Of the first two only what a Debian package brought: what a state wrote stays, wherever it is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.host import remove
from saltext.immutable.spec.model import Slim

_LISTS = "var/lib/dpkg/info/*.list"
_BELOW = {
    "docs": ("bug", "doc", "doc-base", "gtk-doc", "help", "linda", "lintian"),
    "man": ("man",),
    "info": ("info",),
    "locales": ("locale",),
}
"""Category -> folders of /usr/share."""
_LICENCE = re.compile(r"copyright|licen[cs]e|copying|notice", re.IGNORECASE)
_LANGUAGE = re.compile(r"[a-z]{2,3}([_@.].*)?")
_CACHES = (
    "var/backups/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/debconf/*-old",
    "var/cache/man/*",
    "var/lib/dpkg/*-old",
)
_PACKAGE_LISTS = ("var/lib/apt/lists/*",)
_TESTS = tuple(f"{VENV[1:]}/lib/python*/site-packages/*/{name}" for name in ("test", "tests", "SelfTest"))
"""Wheels bring their own; libcloud's are 22 MB."""
_RECORDS = f"{VENV[1:]}/lib/python*/site-packages/*.dist-info/RECORD"
_RULES = [_BELOW, _LICENCE.pattern, _LANGUAGE.pattern, _CACHES, _PACKAGE_LISTS, _TESTS, 1]
"""The last is to be counted up when the code below drops something else than before."""


def made_from(wanted: Slim | Literal[False] | None) -> dict[str, Any] | None:
    """Return what a layer's key says of slimming, which is the order for `slim` too; None: nothing is dropped."""
    return {**asdict(wanted or Slim()), "rules": _RULES} if wanted is not False else None


def slim(tree: Path, order: Mapping[str, Any] | None, lower: Sequence[Path] = ()) -> dict[str, dict[str, int]]:
    """Slim the tree of one layer; return files and bytes by category. ``lower``: the trees of the layers below."""
    if not order:
        return {}
    saved: dict[str, dict[str, int]] = {}
    for category, path in _chosen(tree, order):
        place = tree / path
        if (size := _size(place)) is not None:
            _drop(place, path, lower)
            counted = saved.setdefault(category, {"files": 0, "bytes": 0})
            counted["files"] += 1
            counted["bytes"] += size
    _forget_tests(tree)
    return dict(sorted(saved.items()))


def told(saved: Mapping[str, Mapping[str, int]]) -> str:
    """Return what a sentence says of what was saved; '' if that is nothing."""
    files, size = (sum(each[unit] for each in saved.values()) for unit in ("files", "bytes"))
    return f"slimmed by {size / 1e6:.1f} MB in {files} files: {', '.join(saved)}" if files else ""


def _chosen(tree: Path, order: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield category and path of what goes; perhaps of folders too, which stay."""
    for path in [*_packaged(tree), *_files(tree, (f"{VENV[1:]}/share/man",))]:
        if category := judge(path.removeprefix("opt/salt/").removeprefix("usr/"), order):
            yield category, path
    if order["tests"] == "drop":
        yield from (("tests", path) for path in _files(tree, _TESTS))
    if order["bytecode"] == "drop":
        yield from (("bytecode", path) for path in _bytecode(tree))
    for category, globs in (("caches", _CACHES), ("package lists", _PACKAGE_LISTS)):
        yield from ((category, path) for path in _files(tree, globs))


def judge(path: str, order: Mapping[str, Any]) -> str | None:
    """Return the category as which a packaged file, relative to /usr, is dropped; None: it stays."""
    share, folder, *inner = PurePosixPath(path).parts if path.count("/") > 1 else ("", "")
    category = next((name for name, folders in _BELOW.items() if share == "share" and folder in folders), None)
    if category is None or not inner:
        return None
    if category == "locales" or (category == "man" and not inner[0].startswith("man")):
        foreign = len(inner) > 1 and bool(_LANGUAGE.fullmatch(inner[0])) and not _wanted(inner[0], order["locales"])
        return "locales" if foreign else category if category == "man" and order["man"] == "drop" else None
    # The folder of a package, which may be a link to that of another one, leads to its licence.
    licence = folder == "doc" and (len(inner) == 1 or _LICENCE.match(inner[-1]))
    return None if licence or order[category] == "keep" else category


def _wanted(language: str, locales: Sequence[str] | str) -> bool:
    """Tell whether a language stays: ``de`` has de_AT with it, ``pt_BR`` its fall-back pt."""
    if locales == "keep":
        return True
    first = re.split("[_@.]", language)[0]
    return any(language == each or first == each or re.split("[_@.]", each)[0] == language for each in locales)


def _packaged(tree: Path) -> list[str]:
    """Return what the packages that this layer installed brought to /usr/share."""
    lists = (file.read_text(errors="surrogateescape").splitlines() for file in sorted(tree.glob(_LISTS)))
    return [path[1:] for lines in lists for path in lines if path.startswith("/usr/share/")]


def _files(tree: Path, globs: Iterable[str]) -> Iterator[str]:
    """Yield the files that the globs name, and those in the folders that they name."""
    for found in (found for each in globs for found in sorted(tree.glob(each))):
        if found.parent.resolve() != tree.resolve() / found.parent.relative_to(tree):
            continue  # a link in an image leads to files of this host
        if not found.is_dir() or found.is_symlink():
            yield str(found.relative_to(tree))
            continue
        for folder, _, names in os.walk(found):
            yield from (str(Path(folder, name).relative_to(tree)) for name in sorted(names))


def _bytecode(tree: Path) -> Iterator[str]:
    """Yield the bytecode that Python makes again; Salt's own stays, each start on a read-only root would make it."""
    for folder, folders, names in os.walk(tree):
        if Path(folder) == tree / VENV[1:]:
            folders.clear()
        if Path(folder).name == "__pycache__":
            yield from (str(Path(folder, name).relative_to(tree)) for name in sorted(names) if _source(folder, name))


def _source(folder: str, name: str) -> bool:
    return name.endswith(".pyc") and Path(folder).with_name(f"{name.partition('.')[0]}.py").exists()


def _size(place: Path) -> int | None:
    """Return the bytes of a file or link; None: it is nothing that goes, as a folder or a whiteout."""
    try:
        info = place.lstat()
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode) else None


def _drop(place: Path, path: str, lower: Sequence[Path]) -> None:
    """Remove a file, so that none of the layers below is seen in its place."""
    place.unlink()
    if any(os.path.lexists(below / path) for below in lower):
        os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))


def _forget_tests(tree: Path) -> None:
    """Take the empty folders of the tests away, and their files from the lists of the distributions."""
    gone = [folder for each in _TESTS for folder in tree.glob(each) if not any(map(os.path.isfile, folder.rglob("*")))]
    for folder in gone:
        remove(folder)
    names = tuple(f"{folder.parent.name}/{folder.name}/" for folder in gone)
    for record in tree.glob(_RECORDS) if gone else ():
        lines = record.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(names)]
        if len(kept) < len(lines):
            record.write_text("".join(kept))
