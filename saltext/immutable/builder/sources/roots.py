"""Roots that somebody else made: the tar archive of one, or a directory of the builder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.sources import downloads
from saltext.immutable.builder.sources.debian import ETC, installed
from saltext.immutable.builder.sources.unpack import shown, unpack
from saltext.immutable.host import Host, remove, run
from saltext.immutable.images import manifest
from saltext.immutable.machines.cgroup import Cgroup

_FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var")
"""Which a machine mounts something on, or which this pack writes to."""
_INITS = ("sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd")
_MOUNT = {"mode": 0o755, "uid": 0, "gid": 0, "mtime": 0}
"""What stays of a directory that something is mounted on."""


def content(host: Host, order: Mapping[str, Any]) -> str:
    """Return the hash of a root as it is now; ``order``: tarball or directory, a path of this host."""
    if "tarball" in order:
        return manifest.sha256(str(_archive(order["tarball"])))
    return _hash(_directory(host, order["directory"]))


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> list[str]:
    """Make ``workspace``/fs of a root, by processes in that cgroup, and return what is to be warned of.

    ``order`` has what, tarball or directory, and sha256: the hash of its content, or nothing is made of it.
    """
    tree, what = workspace / "fs", order["what"]
    if "tarball" in order:
        tree.mkdir(mode=0o755)
        archive = downloads.archive(host, workspace, order)
        _require_content(archive, manifest.sha256(str(archive)), order["sha256"])
        before = _version(archive)
        unpack(archive, tree)
        if _version(archive) != before:
            raise CommandExecutionError(f"{archive} changed while it was unpacked; bake again")
    else:
        _copy(_directory(host, order["directory"]), tree, processes)
        if _hash(tree) != order["sha256"]:
            raise CommandExecutionError(f"{order['directory']} changed while it was copied; bake again")
    warnings = [f"{what}: {each}" for each in _lacks(tree, what)]
    _adopt(tree)
    return warnings


def packages(tree: Path) -> dict[str, str]:
    """Return the Debian packages of a root, if dpkg knows of any."""
    status = tree / "var/lib/dpkg/status"
    own = status.resolve() == tree.resolve() / "var/lib/dpkg/status"  # a link might lead to that of this host
    return installed(status if own and status.is_file() else None)


def _archive(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SaltInvocationError(f"from:tarball: there is no file {path} on the builder")
    return file


def _require_content(archive: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise CommandExecutionError(f"{archive} has the sha256 {found}, not {wanted}; nothing is made of it")


def _version(file: Path) -> tuple[int, ...]:
    info = file.stat()
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


# Directories


def _directory(host: Host, path: str) -> Path:
    place = Path(path).resolve()
    if not place.is_dir():
        raise SaltInvocationError(f"from:directory: there is no directory {path} on the builder")
    if host.root.resolve().is_relative_to(place):
        raise SaltInvocationError(f"from:directory: {path} holds the builder's own layers, {host.root}; copy the root")
    return place


def _hash(place: Path) -> str:
    """Return the hash of all below a directory, without what is mounted on directories in it."""
    mounts = frozenset(_mounts(place))
    entries = [_checked(place, entry, mounts) for entry in manifest.entries(place, closed=mounts)]
    return manifest.digest(entries)


def _mounts(place: Path) -> Iterator[str]:
    """Yield the directories below that are of another file system."""
    device = place.stat().st_dev
    for folder, folders, _ in os.walk(place):
        for name in list(folders):
            inner = Path(folder, name)
            if inner.lstat().st_dev != device:
                folders.remove(name)
                yield str(inner.relative_to(place))


def _checked(place: Path, entry: Mapping[str, Any], mounts: frozenset[str]) -> Mapping[str, Any]:
    """Return an entry as the copy has it; raise for what no image may have."""
    path = entry["path"]
    if path in mounts:
        return {"path": path, "type": "dir", **_MOUNT}
    if entry["type"] in ("char", "block", "socket", "whiteout"):
        kind = "a socket" if entry["type"] == "socket" else "a device"
        raise CommandExecutionError(f"{place}/{shown(path)} is {kind}, which no image has; remove it from the root")
    if hidden := [name for name in entry.get("xattrs", ()) if name.startswith("trusted.overlay.")]:
        raise CommandExecutionError(f"{place}/{shown(path)} has the attribute {hidden[0]}: this is a layer, not a root")
    return entry


def _copy(place: Path, tree: Path, processes: Cgroup) -> None:
    copy = ["cp", "--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--"]
    run([*processes.starter(), *copy, place, tree])
    for path in _mounts(place):
        _reset(tree / path)


def _reset(folder: Path) -> None:
    """Leave an empty directory where something else was mounted when the root was copied."""
    if not folder.is_dir() or folder.is_symlink():
        return  # mounted since
    for name in os.listxattr(folder):
        with suppress(OSError):
            os.removexattr(folder, name)
    os.chown(folder, _MOUNT["uid"], _MOUNT["gid"])
    folder.chmod(_MOUNT["mode"])
    os.utime(folder, (_MOUNT["mtime"], _MOUNT["mtime"]))


# What a root has to have


def _lacks(tree: Path, what: str) -> Iterator[str]:
    """Yield what is to be said of a root; raise for one that cannot become a minion, or would lead out of itself."""
    for name in _FOLDERS:
        if not (tree / name).is_dir() or (tree / name).is_symlink():
            if os.path.lexists(tree / name) or name in ("etc", "usr", "var"):
                raise CommandExecutionError(f"{what}: /{name} is no directory; this is no root of a Linux system")
            (tree / name).mkdir(mode=0o755)
    if stat.S_IMODE(tree.stat().st_mode) & 0o055 != 0o055:
        mode = f"{stat.S_IMODE(tree.stat().st_mode):04o}"
        raise CommandExecutionError(f"{what}: its root has mode {mode}, so only root could enter it; chmod it to 0755")
    if not os.path.lexists(tree / "usr/bin/python3"):
        raise CommandExecutionError(f"{what}: it has no /usr/bin/python3, which Salt needs; install it in that root")
    if not any(os.path.lexists(tree / name) for name in _INITS):
        yield "it has no init, so machines cannot boot from it; install systemd and dbus in that root"


def _adopt(tree: Path) -> None:
    for name, text in ETC.items():
        file = tree / "etc" / name
        if name == "hosts" and file.is_file() and not file.is_symlink():
            continue  # a root may know hosts of its own
        remove(file)
        file.write_text(text)
