"""Unpack the tar archive of a whole root. Nothing in it is believed: what would leave the root is refused by name."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import tail

_CHUNK = 1 << 20
# How an archive begins, and what unpacks it.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_XATTR = "SCHILY.xattr."
"""Of a pax header: GNU tar, star and podman write extended attributes so."""
_OVERLAYS = ("trusted.overlay.", "user.overlay.")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Refused(Exception):
    """What no root may have; says why."""


def unpack(archive: Path, tree: Path) -> None:
    """Unpack a tar archive, plain or compressed by gzip, bzip2, xz or zstd, into the empty directory ``tree``.

    Owners, modes, times, hard links, holes and extended attributes are kept. Raises ``CommandExecutionError`` for an
    archive that is cut off or damaged, and for the first member, by its name, that is absolute, has ``..`` in it, is
    written through a link, is a hard link to what is not in the archive, or is a device.
    """
    member: tarfile.TarInfo | None = None
    folders: dict[str, tarfile.TarInfo] = {}
    with _opened(archive) as (stream, ended):
        forward: Any = _Forward(stream, ended)
        try:
            with tarfile.TarFile(fileobj=forward, mode="r", encoding="utf-8", errors="surrogateescape") as tar:
                for member in _members(tar):
                    _extract(tar, member, tree, folders)
            forward.require_end()
            for name in sorted(folders, reverse=True):  # last of all: what is put into a folder changes its time
                _dress(tree, name, folders[name])
        except Refused as err:
            raise CommandExecutionError(f"{archive}: {shown(member.name if member else '')}: {err}") from err
        except (tarfile.TarError, EOFError, OSError, OverflowError, ValueError) as err:
            where = f"after {shown(member.name)}" if member else "at its beginning"
            raise CommandExecutionError(f"{archive} cannot be unpacked, {where}: {err}") from err


def shown(name: str) -> str:
    """Return a name as a message can show it: files may be called anything."""
    return name if name.isprintable() and name.isascii() else ascii(name)


class _Forward:
    """What tarfile reads of a stream: nothing twice. A header that sends it back sends it nowhere."""

    def __init__(self, stream: IO[bytes], ended: Callable[[], None]) -> None:
        self._stream, self._ended = stream, ended
        self._place, self._last = 0, b""

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> None:
        if place < self._place:
            raise tarfile.ReadError("a header leads back to what was read")
        while place > self._place and self._take(min(_CHUNK, place - self._place)):
            pass

    def read(self, size: int) -> bytes:
        self._last = self._take(size)
        return self._last

    def _take(self, size: int) -> bytes:
        found = self._stream.read(size)
        self._place += len(found)
        if len(found) < size:
            self._ended()
        return found

    def require_end(self) -> None:
        """Raise unless the last header was the empty one that ends an archive; then read what follows it."""
        if len(self._last) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut off: its end is missing")
        if any(self._last):
            raise tarfile.ReadError("what follows is no header of a member")
        while self._take(_CHUNK):
            pass


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Give what is in an archive, and what to call when it ends: it raises if the archive is not whole."""
    with archive.open("rb") as file:
        begins = file.read(8)
        file.seek(0)
        program = next((name for magic, name in _COMPRESSED.items() if begins.startswith(magic)), None)
        if program is None:
            yield file, lambda: None
            return
        with _started(program, file, archive) as process:
            assert process.stdout is not None
            yield process.stdout, lambda: _require_success(process, archive)


@contextmanager
def _started(program: str, file: IO[bytes], archive: Path) -> Iterator[subprocess.Popen[bytes]]:
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # what Python has read ahead, the program has to read itself
    try:
        process = subprocess.Popen([program, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as err:
        raise CommandExecutionError(f"{program} is not installed on this host, and {archive} needs it") from err
    with process:
        try:
            yield process
        finally:
            process.kill()


def _require_success(process: subprocess.Popen[bytes], archive: Path) -> None:
    assert process.stderr is not None
    if process.wait() and not process.stderr.closed:
        said = tail(process.stderr.read().decode(errors="replace").strip(), 3)
        raise CommandExecutionError(f"{archive} is cut off or damaged; {said}")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # a root has many, and none is asked for again
        yield member


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, folders: dict[str, tarfile.TarInfo]) -> None:
    name = _name(member.name)
    _require_kind(member)
    with _parent(tree, name) as (folder, base):
        if member.isdir():
            _make_folder(folder, base)
            folders[name] = member
            return
        if name == ".":
            raise Refused("the root itself is no directory")
        _clear(folder, base)
        if member.islnk():
            _link(tree, _name(member.linkname), folder, base)
            return
        if member.issym():
            os.symlink(member.linkname, base, dir_fd=folder)
        elif member.isfifo():
            os.mkfifo(base, dir_fd=folder)
        else:
            _write(tar, member, folder, base)
        _dress_in(folder, base, member)


def _name(name: str) -> str:
    """Return where a member goes, below the root; ``.`` is the root."""
    path = PurePosixPath(name)
    if path.is_absolute():
        raise Refused("it has an absolute path; make the archive with tar -C ROOT .")
    if ".." in path.parts:
        raise Refused("its path has .. in it, which leads out of the root")
    return str(path)


def _require_kind(member: tarfile.TarInfo) -> None:
    if member.ischr() or member.isblk():
        raise Refused("it is a device, which no image has: machines get their own; make the archive without /dev/*")
    known = member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isfifo()
    if not known or member.type not in tarfile.SUPPORTED_TYPES:
        raise Refused(f"it is of a kind that no root has ({member.type!r})")


@contextmanager
def _parent(tree: Path, name: str) -> Iterator[tuple[int, str]]:
    """Give the folder that a member goes into, as a descriptor, and its name there; links are not followed."""
    *parents, base = PurePosixPath(name).parts or (".",)
    folder = os.open(tree, _FOLDER)
    try:
        for number, part in enumerate(parents):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            try:
                inner = os.open(part, _FOLDER, dir_fd=folder)
            except OSError as err:
                through = shown("/".join(parents[: number + 1]))
                raise Refused(f"it is written through {through}, which is no directory") from err
            os.close(folder)
            folder = inner
        yield folder, base
    finally:
        os.close(folder)


def _make_folder(folder: int, base: str) -> None:
    try:
        os.mkdir(base, dir_fd=folder)
    except FileExistsError:
        try:
            os.close(os.open(base, _FOLDER, dir_fd=folder))
        except OSError as err:
            raise Refused("it is there already, and is no directory") from err


def _clear(folder: int, base: str) -> None:
    """Remove what an earlier member made of the name: the last one counts."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(base, dir_fd=folder)
    except IsADirectoryError as err:
        raise Refused("it is there already, as a directory") from err


def _link(tree: Path, target: str, folder: int, base: str) -> None:
    with _parent(tree, target) as (there, name):
        try:
            os.link(name, base, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as err:
            raise Refused(f"it is a hard link to {shown(target)}, which is no file before it ({err.strerror})") from err


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: int, base: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with source, os.fdopen(os.open(base, _NEW, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        left = member.size
        while left:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                raise tarfile.ReadError("it is cut off in the middle of a file")
            left -= len(chunk)
            if member.issparse() and not any(chunk):
                file.seek(len(chunk), os.SEEK_CUR)
            else:
                file.write(chunk)
        file.truncate(member.size)


def _dress(tree: Path, name: str, member: tarfile.TarInfo) -> None:
    with _parent(tree, name) as (folder, base):
        _dress_in(folder, base, member)


def _dress_in(folder: int, base: str, member: tarfile.TarInfo) -> None:
    """Give a file its owner, mode, attributes and time; in this order, as each takes something of the next away."""
    os.chown(base, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
    if not member.issym():
        os.chmod(base, member.mode & 0o7777, dir_fd=folder)
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            _set_xattr(f"/proc/self/fd/{folder}/{base}", key.removeprefix(_XATTR), value)
    os.utime(base, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)


def _set_xattr(place: str, name: str, value: str) -> None:
    if name.startswith(_OVERLAYS):
        raise Refused(f"it has the attribute {name}, which would hide files of the image")
    os.setxattr(place, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
