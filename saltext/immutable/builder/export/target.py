"""The file that an export writes: it is complete, or it is not there."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import sync_directory

_UNFINISHED = ".immutable-export-"


def require(target: str, force: bool) -> Path:
    """Return the path of the target. Raise SaltInvocationError unless a file may be written there.

    ``force``: replace an existing file.
    """
    path = Path(target)
    if not path.is_absolute():
        raise SaltInvocationError(f"target: {target} is no absolute path; give one of the builder")
    if not path.parent.is_dir():
        raise SaltInvocationError(f"target: {path.parent} is no directory on the builder; create it first")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise SaltInvocationError(f"target: {target} exists and is no regular file; name another")
    if path.exists() and not force:
        raise SaltInvocationError(f"target: {target} exists already; name another, or add force=True to replace it")
    return path


def require_space(path: Path, needed: int) -> int:
    """Return the free bytes in the folder of ``path``; raise CommandExecutionError if they are fewer than needed."""
    system = os.statvfs(path.parent)
    free = system.f_bavail * system.f_frsize
    if free < needed:
        raise CommandExecutionError(
            f"{path.parent} has {free >> 20} MB free and this export needs about {(needed >> 20) + 1} MB; "
            "free some space, or name a target elsewhere"
        )
    return free


@contextmanager
def create(path: Path, force: bool) -> Iterator[IO[bytes]]:
    """Give a file that is renamed to ``path`` at the end. After a kill the next export to that folder removes it.

    Only root may read it, because an image may hold secrets of its states.
    """
    with _locked(path.parent):
        sweep(path.parent)
        unfinished = path.parent / f"{_UNFINISHED}{secrets.token_hex(6)}"
        file = os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            require(str(path), force)  # another process may have made one meanwhile
            unfinished.rename(path)
            sync_directory(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the files of exports that were killed: those that no process has locked."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock of the folder, so that one export at a time makes or removes such files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
