"""Existing roots as the lowest layer of an image: a tar archive, or a directory of the builder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import rpm
from saltext.immutable.builder.sources import downloads
from saltext.immutable.builder.sources.debian import ETC, installed
from saltext.immutable.builder.sources.unpack import OVERLAYS, printable, unpack
from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, remove, run
from saltext.immutable.images import manifest
from saltext.immutable.machines.cgroup import Cgroup

STATUS = "var/lib/dpkg/status"
"""Where dpkg keeps what is installed."""
_FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var")
"""Folders on which a machine mounts something, or to which this pack writes."""
_INITS = ("sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd")
_MOUNT = {"mode": 0o755, "uid": 0, "gid": 0, "mtime": 0}
"""Metadata of a folder in the layer on which something was mounted when the root was copied."""


def content(host: Host, order: Mapping[str, Any]) -> str:
    """Return the hash of a root as it is now. ``order``: tarball or directory, a path of this host.

    Raises SaltInvocationError where there is none, and CommandExecutionError for files that no image may have.
    """
    if "tarball" in order:
        return manifest.sha256(str(_archive(order["tarball"])))
    return _hash(_directory(host, order["directory"]))


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> list[str]:
    """Make ``workspace``/fs from a root, with processes in the cgroup ``processes``; return warnings.

    ``order``: what, tarball or directory, sha256 (hash of the content, as `content` gives it), offline. Raises
    CommandExecutionError where the content is another one, and where the root lacks what a minion needs.
    """
    tree, name = workspace / "fs", order["what"]
    if "tarball" in order:
        tree.mkdir(mode=0o755)
        archive = downloads.fetched(host, workspace, order["tarball"], order)
        before = downloads.version(archive)
        downloads.require_content(archive, manifest.sha256(str(archive)), order["sha256"])
        unpack(archive, tree)
        if downloads.version(archive) != before:
            raise CommandExecutionError(f"{archive} changed while it was unpacked; bake again")
    else:
        _copy(_directory(host, order["directory"]), tree, processes)
        if _hash(tree) != order["sha256"]:
            raise CommandExecutionError(f"{order['directory']} changed while it was copied; bake again")
    return finish(tree, name)


def finish(tree: Path, name: str) -> list[str]:
    """Make a root fit for machines: add the folders that they need, replace the files of one host; return warnings.

    Raises CommandExecutionError where the root lacks what a minion needs. ``name``: how messages name it.
    """
    warnings = [f"{name}: {warning}" for warning in _check(tree, name)]
    _write_etc(tree)
    return warnings


def packages(find: rpm.Find) -> dict[str, str]:
    """Return the packages of a root that dpkg or else rpm lists, name:arch -> version; {} where it has neither."""
    return installed(find(STATUS)) or rpm.installed(find)


def _archive(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SaltInvocationError(f"from:tarball: there is no file {path} on the builder; correct the path")
    return file


# Directories


def _directory(host: Host, path: str) -> Path:
    root = Path(path).resolve()
    if not root.is_dir():
        raise SaltInvocationError(f"from:directory: there is no directory {path} on the builder; correct the path")
    if host.root.resolve().is_relative_to(root):
        raise SaltInvocationError(
            f"from:directory: {path} contains the builder's own layers ({host.root}); copy it to another directory"
        )
    return root


def _hash(root: Path) -> str:
    """Return the hash of all files of a root, without other file systems that are mounted in it."""
    mounts = frozenset(_mounts(root))
    entries = [_checked(root, entry, mounts) for entry in manifest.entries(root, closed=mounts)]
    return manifest.digest(entries)


def _mounts(root: Path) -> Iterator[str]:
    """Yield the directories of a root on which another file system is mounted."""
    device = root.stat().st_dev
    for folder, folders, _ in os.walk(root):
        for name in list(folders):
            inner = Path(folder, name)
            if inner.lstat().st_dev != device:
                folders.remove(name)
                yield str(inner.relative_to(root))


def _checked(root: Path, entry: Mapping[str, Any], mounts: frozenset[str]) -> Mapping[str, Any]:
    """Return a manifest entry as the copy has it. Raise CommandExecutionError for what no image may have."""
    path = entry["path"]
    if path in mounts:
        return {"path": path, "type": "dir", **_MOUNT}
    if entry["type"] in ("char", "block", "socket", "whiteout"):
        kind = "a socket" if entry["type"] == "socket" else "a device"
        raise CommandExecutionError(
            f"{root}/{printable(path)} is {kind}, which no image may have; remove it from the root"
        )
    require_no_layer(f"{root}/{path}", f"{root}/{printable(path)}")
    return entry


def require_no_layer(path: str, name: str) -> None:
    """Raise CommandExecutionError for a file with attributes by which overlay would hide or replace files of an image.

    ``name``: how the message names it.
    """
    for attribute in os.listxattr(path, follow_symlinks=False):
        if attribute.startswith(OVERLAYS):
            raise CommandExecutionError(
                f"{name} has the attribute {attribute}: it is a layer, not a root; name that of a system"
            )


def _copy(root: Path, tree: Path, processes: Cgroup) -> None:
    """Copy a root by ``cp --archive``, without the content of other file systems that are mounted in it."""
    copy = ["cp", "--archive", "--reflink=auto", "--one-file-system", "--no-target-directory", "--"]
    run([*processes.start_command(), *copy, root, tree])
    for path in _mounts(root):
        _reset(tree / path)


def _reset(folder: Path) -> None:
    """Give a folder on which something was mounted the metadata of `_MOUNT`."""
    if not folder.is_dir() or folder.is_symlink():
        return  # it was mounted after the copy
    for name in os.listxattr(folder):
        with suppress(OSError):
            os.removexattr(folder, name)
    os.chown(folder, _MOUNT["uid"], _MOUNT["gid"])
    folder.chmod(_MOUNT["mode"])
    os.utime(folder, (_MOUNT["mtime"], _MOUNT["mtime"]))


# Requirements of a root


def _check(tree: Path, name: str) -> Iterator[str]:
    """Yield warnings about a root. Raise CommandExecutionError where no minion can be made of it.

    Missing folders that machines mount something on are created.
    """
    for folder in _FOLDERS:
        if not (tree / folder).is_dir() or (tree / folder).is_symlink():
            if os.path.lexists(tree / folder) or folder in ("etc", "usr", "var"):
                raise CommandExecutionError(f"{name}: /{folder} is no directory; name the root of a Linux system")
            (tree / folder).mkdir(mode=0o755)
    if stat.S_IMODE(tree.stat().st_mode) & 0o055 != 0o055:
        mode = f"{stat.S_IMODE(tree.stat().st_mode):04o}"
        raise CommandExecutionError(f"{name}: its root has mode {mode}, so only root could enter it; chmod it to 0755")
    if os.path.lexists(tree / SEAL_PATH.lstrip("/")):
        raise CommandExecutionError(
            f"{name}: it is an image of this pack, and sealed; write from: {{recipe: NAME}} to build on that recipe"
        )
    if not os.path.lexists(tree / "usr/bin/python3"):
        raise CommandExecutionError(f"{name}: it has no /usr/bin/python3, which Salt needs; install it in that root")
    find = rpm.within(tree)
    if not find(STATUS) and (why := rpm.problem(find)):
        yield f"no packages of it are known: {why}, and bake with refresh=always"
    if not any(os.path.lexists(tree / folder) for folder in _INITS):
        yield "it has no init, so machines cannot boot from it; install systemd and dbus in that root"


def _write_etc(tree: Path) -> None:
    """Replace the files of /etc that belong to one host; /etc/hosts of the root stays."""
    for name, text in ETC.items():
        file = tree / "etc" / name
        if name == "hosts" and file.is_file() and not file.is_symlink():
            continue  # it may list other hosts
        remove(file)
        file.write_text(text)
