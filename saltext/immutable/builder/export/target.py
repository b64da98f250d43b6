"""The file that an export makes: there as a whole or not at all."""

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
    """Return the path of a target that may be written."""
    place = Path(target)
    if not place.is_absolute():
        raise SaltInvocationError(f"target: {target} is no absolute path on the builder")
    if not place.parent.is_dir():
        raise SaltInvocationError(f"target: {place.parent} is no directory on the builder; make it first")
    if os.path.lexists(place) and (place.is_symlink() or not place.is_file()):
        raise SaltInvocationError(f"target: {target} is there and no regular file; name another")
    if place.exists() and not force:
        raise SaltInvocationError(f"target: {target} is there already; name another, or add force=True to replace it")
    return place


def require_room(place: Path, needed: int) -> int:
    """Return the bytes that are free beside ``place``; raise where they are fewer than are needed."""
    system = os.statvfs(place.parent)
    free = system.f_bavail * system.f_frsize
    if free < needed:
        raise CommandExecutionError(
            f"{place.parent} has {free >> 20} MB free and this export needs about {(needed >> 20) + 1} MB; "
            "make room there, or name a target elsewhere"
        )
    return free


@contextmanager
def written(place: Path, force: bool) -> Iterator[IO[bytes]]:
    """Give a file that becomes ``place`` at the end. What a kill leaves of it is removed by the next export beside it.

    It is root's alone, as is what it is made from: an image may hold what not everybody should read.
    """
    with _alone(place.parent):
        sweep(place.parent)
        unfinished = place.parent / f"{_UNFINISHED}{secrets.token_hex(6)}"
        file = os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "w+b")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            require(str(place), force)  # somebody else may have made one meanwhile
            unfinished.rename(place)
            sync_directory(place.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what exports left that were killed: files whose lock nobody holds."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError, BlockingIOError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only export that makes or removes such a file there."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
