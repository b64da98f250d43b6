"""Remove from a layer what no machine needs: documentation, translations, caches, tests of Salt's packages.

Documentation and translations are removed only where a package of dpkg or rpm installed them. Files that a state wrote
stay.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from saltext.immutable import rpm
from saltext.immutable.builder.finish.caches import CACHES, PACKAGE_LISTS
from saltext.immutable.builder.finish.scrub import is_real
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
_TESTS = tuple(f"{VENV[1:]}/lib/python*/site-packages/*/{name}" for name in ("test", "tests", "SelfTest"))
"""Many Python packages install their tests; those of libcloud are 22 MB."""
_RECORDS = f"{VENV[1:]}/lib/python*/site-packages/*.dist-info/RECORD"
_RULES = [_BELOW, _LICENCE.pattern, _LANGUAGE.pattern, CACHES, PACKAGE_LISTS, _TESTS, 3]
"""Part of a layer's key. Increase the last number when the code below removes something else than before."""


def settings(of_recipe: Slim | Literal[False] | None) -> dict[str, Any] | None:
    """Return the settings for `slim`, which are part of a layer's key. None: nothing is removed.

    ``of_recipe``: the recipe's ``slim``; None stands for the defaults.
    """
    return {**asdict(of_recipe or Slim()), "rules": _RULES} if of_recipe is not False else None


def slim(tree: Path, order: Mapping[str, Any] | None, lower: Sequence[Path] = ()) -> dict[str, dict[str, int]]:
    """Slim the tree of one layer; return the number of files and bytes removed, by category.

    ``order``: the result of `settings`. ``lower``: the trees of the layers below, whose files must not show up instead.
    """
    if not order:
        return {}
    saved: dict[str, dict[str, int]] = {}
    for category, path in _removable(tree, order):
        file = tree / path
        if (size := _size(file)) is not None:
            _drop(file, path, lower)
            counted = saved.setdefault(category, {"files": 0, "bytes": 0})
            counted["files"] += 1
            counted["bytes"] += size
    _forget_tests(tree)
    return dict(sorted(saved.items()))


def summary(saved: Mapping[str, Mapping[str, int]]) -> str:
    """Return the result of `slim` as a sentence, '' if nothing was removed."""
    files, size = (sum(each[unit] for each in saved.values()) for unit in ("files", "bytes"))
    return f"slimmed by {size / 1e6:.1f} MB in {files} files: {', '.join(saved)}" if files else ""


def _removable(tree: Path, order: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield category and path of what is to be removed. Folders among them stay."""
    for path in [*_packaged(tree), *_files(tree, (f"{VENV[1:]}/share/man",))]:
        if category := category_of(path.removeprefix("opt/salt/").removeprefix("usr/"), order):
            yield category, path
    if order["tests"] == "drop":
        yield from (("tests", path) for path in _files(tree, _TESTS))
    if order["bytecode"] == "drop":
        yield from (("bytecode", path) for path in _bytecode(tree))
    for category, globs in (("caches", CACHES), ("package lists", PACKAGE_LISTS)):
        yield from ((category, path) for path in _files(tree, globs))


def category_of(path: str, order: Mapping[str, Any]) -> str | None:
    """Return the category under which a packaged file is removed, or None if it stays. ``path``: relative to /usr."""
    share, folder, *inner = PurePosixPath(path).parts if path.count("/") > 1 else ("", "")
    category = next((name for name, folders in _BELOW.items() if share == "share" and folder in folders), None)
    if category is None or not inner:
        return None
    if category == "locales" or (category == "man" and not inner[0].startswith("man")):
        foreign = len(inner) > 1 and bool(_LANGUAGE.fullmatch(inner[0])) and not _is_kept(inner[0], order["locales"])
        return "locales" if foreign else category if category == "man" and order["man"] == "drop" else None
    # A package's folder may be a link to that of another package; its licence is found there.
    licence = folder == "doc" and (len(inner) == 1 or _LICENCE.match(inner[-1]))
    return None if licence or order[category] == "keep" else category


def _is_kept(language: str, locales: Sequence[str] | str) -> bool:
    """Return whether a language stays: ``de`` keeps de_AT too, and ``pt_BR`` its fall-back pt."""
    if locales == "keep":
        return True
    first = re.split("[_@.]", language)[0]
    return any(language == each or first == each or re.split("[_@.]", each)[0] == language for each in locales)


def _packaged(tree: Path) -> list[str]:
    """Return the files in /usr/share that belong to packages which this layer installed."""
    lists = (file.read_text(errors="surrogateescape").splitlines() for file in sorted(tree.glob(_LISTS)))
    found = [path for lines in lists for path in lines]
    database = rpm.within(tree)
    if rpm.problem(database) is None:
        found += sorted(path for path, _ in rpm.files(database))
    inside = cache(partial(is_real, tree))  # a list of the root may name files of this host
    return [path[1:] for path in found if path.startswith("/usr/share/") and inside((tree / path[1:]).parent)]


def _files(tree: Path, globs: Iterable[str]) -> Iterator[str]:
    """Yield the files that match the globs, and all files in folders that match."""
    for found in (found for each in globs for found in sorted(tree.glob(each))):
        if not is_real(tree, found.parent):
            continue
        if not found.is_dir() or found.is_symlink():
            yield str(found.relative_to(tree))
            continue
        for folder, _, names in os.walk(found):
            yield from (str(Path(folder, name).relative_to(tree)) for name in sorted(names))


def _bytecode(tree: Path) -> Iterator[str]:
    """Yield bytecode that has its source. Salt's own stays: on a read-only root each start would compile it again."""
    for folder, folders, names in os.walk(tree):
        if Path(folder) == tree / VENV[1:]:
            folders.clear()
        if Path(folder).name == "__pycache__":
            yield from (
                str(Path(folder, name).relative_to(tree)) for name in sorted(names) if _has_source(folder, name)
            )


def _has_source(folder: str, name: str) -> bool:
    return name.endswith(".pyc") and Path(folder).with_name(f"{name.partition('.')[0]}.py").exists()


def _size(path: Path) -> int | None:
    """Return the bytes of a file or link, or None for anything else (a folder, a whiteout, nothing)."""
    try:
        info = path.lstat()
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode) else None


def _drop(file: Path, path: str, lower: Sequence[Path]) -> None:
    """Remove a file. Make a whiteout where a layer below has the same path, or that file would show up."""
    file.unlink()
    if any(os.path.lexists(below / path) for below in lower):
        os.mknod(file, stat.S_IFCHR, os.makedev(0, 0))


def _forget_tests(tree: Path) -> None:
    """Remove the empty folders of tests, and the tests from the RECORD files of their distributions."""
    found = (folder for each in _TESTS for folder in tree.glob(each) if is_real(tree, folder))
    empty = [folder for folder in found if not any(map(os.path.isfile, folder.rglob("*")))]
    for folder in empty:
        remove(folder)
    names = tuple(f"{folder.parent.name}/{folder.name}/" for folder in empty)
    for record in filter(partial(is_real, tree), tree.glob(_RECORDS) if empty else ()):
        lines = record.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(names)]
        if len(kept) < len(lines):
            record.write_text("".join(kept))
