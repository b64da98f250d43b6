"""Read rpm's database in a root of the RPM family: what is installed, and whose each file is.

The program ``rpm`` of this host reads a copy of it, since it writes beside what it reads, and a layer must not change.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import run, tail

Find = Callable[[str], Path | None]
"""Returns the real path of a file of a root, None where the root has none."""
_FOLDERS = ("usr/lib/sysimage/rpm", "var/lib/rpm")
_SQLITE, _NDB, _BERKELEY = "rpmdb.sqlite", "Packages.db", "Packages"
_LOG = "-wal"
"""Of SQLite: what was written last may be there only."""
_KEY = "gpg-pubkey"
"""How rpm calls keys, which it keeps as packages."""
_FIELDS = ("NAME", "ARCH", "EVR", "LICENSE", "SOURCERPM", "VENDOR")


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
    for package in packages(find) if problem(find) is None else ():
        name = f"{package['name']}:{package['arch']}"
        found[name] = ", ".join(filter(None, [found.get(name), package["version"]]))
    return found


def packages(find: Find) -> Iterator[dict[str, str]]:
    """Yield the packages that rpm lists as installed: name, arch, version (with its epoch), license, source, vendor.

    Raises CommandExecutionError where the database cannot be read.
    """
    for line in sorted(_query(find, "\\t".join(f"%{{{field}}}" for field in _FIELDS) + "\\n")):
        name, arch, version, license_, source, vendor = ("" if word == "(none)" else word for word in line.split("\t"))
        if name != _KEY:
            known = {"name": name, "arch": arch, "version": version.removeprefix("0:"), "license": license_}
            yield {**known, "source": source, "vendor": vendor}


def files(find: Find) -> Iterator[tuple[str, str]]:
    """Yield path and package of each file that rpm lists. Raises CommandExecutionError as `packages` does."""
    for line in _query(find, "[%{FILENAMES}\\t%{=NAME}\\n]"):
        path, _, name = line.rpartition("\t")
        yield path, name


def problem(find: Find) -> str | None:
    """Return why the database of a root cannot be read, and what to do; None if it can, or if there is none."""
    try:
        _query(find, "")
    except CommandExecutionError as err:
        return str(err)
    return None


def _query(find: Find, wanted: str) -> list[str]:
    """Return the lines that rpm prints for a format, [] where there is no database."""
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
        unread = _NDB in found and Path(place, _SQLITE).exists()  # this rpm began an empty one of its own
        if done.returncode or unread:
            why = f"of the format {_NDB}" if unread else tail(done.stderr.strip(), 1)
            raise CommandExecutionError(
                f"the database of rpm cannot be read by the rpm of this host ({why}); use a builder whose rpm reads it"
            )
    return done.stdout.splitlines()


def _database(find: Find) -> dict[str, Path]:
    """Return the files of the database by name; {} where there is none."""
    for folder in _FOLDERS:
        for name in (_SQLITE, _NDB, _BERKELEY):
            if file := find(f"{folder}/{name}"):
                log = find(f"{folder}/{name}{_LOG}")
                return {name: file, **({f"{name}{_LOG}": log} if log else {})}
    return {}
