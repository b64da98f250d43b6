"""Read rpm's database in a root of the RPM family: what is installed, and whose each file is.

The program ``rpm`` of this host reads a copy of it, since it writes beside what it reads, and a layer must not change.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import run, tail
from saltext.immutable.text import quoted

Find = Callable[[str], Path | None]
"""Returns the real path of a file of a root, None where the root has none."""
_FOLDERS = ("usr/lib/sysimage/rpm", "var/lib/rpm")
_SQLITE, _NDB, _BERKELEY = "rpmdb.sqlite", "Packages.db", "Packages"
_LOG = "-wal"
"""Of SQLite: what was written last may be there only."""
_KEY = "gpg-pubkey"
"""How rpm calls keys, which it keeps as packages."""
_ERROR = "error: "
"""How rpm begins a line about a package that it leaves out, or a damaged page. It exits with 0 then."""
_NEXT, _END = "\x1f", "\x1e"
"""Between fields and after each line of them: a license, a vendor and a path may hold tabs and line breaks."""
_FIELDS = ("NAME", "ARCH", "EVR", "LICENSE", "SOURCERPM", "VENDOR")
_PACKAGE = _NEXT.join(f"%{{{field}}}" for field in _FIELDS) + _END


def within(tree: Path) -> Find:
    """Return what finds the files of a tree; none to which a symbolic link leads, as that may be one of this host."""
    root = tree.resolve()

    def find(path: str) -> Path | None:
        file = tree / path
        return file if file.is_file() and file.resolve() == root / path else None

    return find


def is_there(find: Find) -> bool:
    """Tell whether a root has a database of rpm."""
    return bool(_database(find))


def installed(find: Find) -> dict[str, str]:
    """Return the packages that rpm lists as installed: name:arch -> version, or versions if there are several.

    {} where there is no database, or it cannot be read, see `problem`.
    """
    found: dict[str, str] = {}
    try:
        lines = _query(find, _PACKAGE)
    except CommandExecutionError:
        return found
    for package in _parsed(lines):
        name = f"{package['name']}:{package['arch']}"
        found[name] = ", ".join(filter(None, [found.get(name), package["version"]]))
    return found


def packages(find: Find) -> Iterator[dict[str, str]]:
    """Yield the packages that rpm lists as installed: name, arch, version (with its epoch), license, source, vendor.

    Raises CommandExecutionError where the database cannot be read.
    """
    yield from _parsed(_query(find, _PACKAGE))


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    for line in sorted(lines):
        words = ["" if word == "(none)" else word for word in line.split(_NEXT)]
        if len(words) != len(_FIELDS):
            raise _unread(f"{quoted(line)} is no package")
        name, arch, version, license_, source, vendor = words
        if name != _KEY:
            known = {"name": name, "arch": arch, "version": version.removeprefix("0:"), "license": license_}
            yield {**known, "source": source, "vendor": vendor}


def files(find: Find) -> Iterator[tuple[str, str]]:
    """Yield path and package of each file that rpm lists. Raises CommandExecutionError as `packages` does."""
    for line in _query(find, f"[%{{FILENAMES}}{_NEXT}%{{=NAME}}{_END}]"):
        path, _, name = line.rpartition(_NEXT)
        yield path, name


def problem(find: Find) -> str | None:
    """Return why the database of a root cannot be read, and what to do; None if it can, or if there is none."""
    try:
        _query(find, "")
    except CommandExecutionError as err:
        return str(err)
    return None


def _query(find: Find, wanted: str) -> list[str]:
    """Return what rpm prints for a format, up to each _END; [] where there is no database."""
    found = _database(find)
    if not found:
        return []
    if not shutil.which("rpm"):
        raise CommandExecutionError(
            "the packages are in a database of rpm, and rpm is not installed on this host; install it there (apt-get "
            "install rpm)"
        )
    with tempfile.TemporaryDirectory(prefix="immutable-rpm-") as place:
        for name, file in found.items():
            shutil.copyfile(file, Path(place, name))
        done = run(["rpm", f"--dbpath={place}", "--query", "--all", f"--queryformat={wanted}"], check=False)
        if _NDB in found and Path(place, _SQLITE).exists():  # this rpm began an empty one of its own
            raise _unread(f"of the format {_NDB}")
        skipped = next((line for line in done.stderr.splitlines() if line.startswith(_ERROR)), None)
        if done.returncode or skipped:
            raise _unread(skipped or tail(done.stderr.strip(), 1))
    return done.stdout.split(_END)[:-1]


def _unread(why: str) -> CommandExecutionError:
    return CommandExecutionError(
        f"the database of rpm cannot be read by the rpm of this host ({why}); use a builder whose rpm reads it, or "
        "mend the database in that root (rpmdb --rebuilddb)"
    )


def _database(find: Find) -> dict[str, Path]:
    """Return the files of the database by name; {} where there is none."""
    for folder in _FOLDERS:
        for name in (_SQLITE, _NDB, _BERKELEY):
            if file := find(f"{folder}/{name}"):
                log = find(f"{folder}/{name}{_LOG}")
                return {name: file, **({f"{name}{_LOG}": log} if log else {})}
    return {}
