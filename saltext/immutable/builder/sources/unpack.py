"""Unpack the tar archive of a root or a layer safely: a member that would be written outside is refused by name."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.sources.whiteouts import Whiteouts
from saltext.immutable.host import tail

_CHUNK = 1 << 20
# First bytes of an archive -> program that decompresses it.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_XATTR = "SCHILY.xattr."
"""Prefix of pax headers in which GNU tar, star and podman store extended attributes."""
OVERLAYS = ("trusted.overlay.", "user.overlay.")
"""How the extended attributes begin by which overlay hides or replaces files of an image."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Refused(Exception):
    """A member that no root may have; the message says why."""


def unpack(archive: Path, tree: Path, whiteouts: Whiteouts | None = None, sha256: str = "") -> None:
    """Unpack a tar archive, plain or compressed by gzip, bzip2, xz or zstd, into the empty directory ``tree``.

    Owners, modes, times, hard links, holes and extended attributes are kept. ``whiteouts``: the archive is a layer of
    OCI, and ``tree`` has those below it; devices in its ``/dev`` are left out. ``sha256``: of the archive after it was
    decompressed, '' for any. Raises CommandExecutionError for an
    archive that is truncated or damaged, and for the first member (by name) that has an absolute path or ``..``, is
    written through a symbolic link, is a hard link to a file that is not in the archive, or is a device.
    """
    member: tarfile.TarInfo | None = None
    folders: dict[str, tarfile.TarInfo] = {}
    with _opened(archive) as (stream, on_end):
        forward: Any = _ForwardStream(stream, on_end, hashlib.sha256() if sha256 else None)
        try:
            with tarfile.TarFile(fileobj=forward, mode="r", encoding="utf-8", errors="surrogateescape") as tar:
                for member in _members(tar):
                    _extract(tar, member, tree, folders, whiteouts)
            forward.require_end(sha256)
            for name in sorted(folders, reverse=True):  # last, because writing into a folder changes its time
                _set_metadata(tree, name, folders[name])
        except Refused as err:
            name = printable(member.name if member else "")
            if whiteouts:  # nobody can take it out of a layer of a registry
                raise CommandExecutionError(
                    f"{archive}: its member {name}: {err}; flatten the image (for example with docker export) and name "
                    "the archive: from: {tarball: PATH}"
                ) from err
            raise CommandExecutionError(f"{archive}: its member {name}: {err}; make the archive without it") from err
        except (tarfile.TarError, EOFError, OSError, OverflowError, ValueError) as err:
            where = f"after {printable(member.name)}" if member else "at its beginning"
            raise CommandExecutionError(f"{archive} cannot be unpacked, {where}: {err}; make it again") from err


def printable(name: str) -> str:
    """Return a file name as a message can show it: names may have any characters."""
    return name if name.isprintable() and name.isascii() else ascii(name)


class _ForwardStream:
    """A stream for tarfile that can only be read forwards. A header that points backwards is an error."""

    def __init__(self, stream: IO[bytes], on_end: Callable[[], None], digest: Any = None) -> None:
        self._stream, self._on_end, self._digest = stream, on_end, digest
        self._position, self._last = 0, b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while position > self._position and self._take(min(_CHUNK, position - self._position)):
            pass

    def read(self, size: int) -> bytes:
        self._last = self._take(size)
        return self._last

    def _take(self, size: int) -> bytes:
        found = self._stream.read(size)
        self._position += len(found)
        if self._digest is not None:
            self._digest.update(found)
        if len(found) < size:
            self._on_end()
        return found

    def require_end(self, sha256: str = "") -> None:
        """Raise unless the last header was the empty one that ends an archive, and all has the sha256, '' for any."""
        if len(self._last) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is truncated: its end is missing")
        if any(self._last):
            raise tarfile.ReadError("the next header is invalid")
        while self._take(_CHUNK):
            pass
        if self._digest is not None and self._digest.hexdigest() != sha256:
            raise tarfile.ReadError(f"its content has the sha256 {self._digest.hexdigest()}, not {sha256}")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
    """Give the decompressed content of an archive, and a function that raises at its end if it is not complete."""
    with archive.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        program = next((name for start, name in _COMPRESSED.items() if magic.startswith(start)), None)
        if program is None:
            yield file, lambda: None
            return
        with _decompressor(program, file, archive) as process:
            assert process.stdout is not None
            yield process.stdout, lambda: _require_success(process, archive)


@contextmanager
def _decompressor(program: str, file: IO[bytes], archive: Path) -> Iterator[subprocess.Popen[bytes]]:
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # Python has read ahead
    try:
        process = subprocess.Popen([program, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as err:
        raise CommandExecutionError(
            f"{program} is not installed on this host, and {archive} is compressed by it; install it on the builder"
        ) from err
    with process:
        try:
            yield process
        finally:
            process.kill()


def _require_success(process: subprocess.Popen[bytes], archive: Path) -> None:
    assert process.stderr is not None
    if process.wait() and not process.stderr.closed:
        output = tail(process.stderr.read().decode(errors="replace").strip(), 3)
        raise CommandExecutionError(f"{archive} is truncated or damaged: {output}; make it again")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # saves memory: none is needed again
        yield member


def _extract(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    tree: Path,
    folders: dict[str, tarfile.TarInfo],
    whiteouts: Whiteouts | None,
) -> None:
    path = _path(member.name)
    if whiteouts and (member.ischr() or member.isblk()) and path.startswith("dev/"):
        return  # a machine gets its own
    if whiteouts and whiteouts.leaves_out(path):
        return
    _require_kind(member)
    with _parent(tree, path) as (folder, base):
        if whiteouts and path != ".":
            if whiteouts.carry_out(folder, path):
                return
            whiteouts.replaces(folder, path, member.isdir())
            whiteouts.note(path)
        if member.isdir():
            _make_folder(folder, base)
            folders[path] = member
            return
        if path == ".":
            raise Refused("the root of the archive is no directory")
        _clear(folder, base)
        if member.islnk():
            _link(tree, _path(member.linkname), folder, base)
            return
        if member.issym():
            os.symlink(member.linkname, base, dir_fd=folder)
        elif member.isfifo():
            os.mkfifo(base, dir_fd=folder)
        else:
            _write(tar, member, folder, base)
        _set_metadata_in(folder, base, member)


def _path(name: str) -> str:
    """Return the path of a member, relative to the root; ``.`` is the root itself."""
    path = PurePosixPath(name)
    if path.is_absolute():
        raise Refused("it has an absolute path; make the archive with tar -C ROOT .")
    if ".." in path.parts:
        raise Refused("its path has .. in it, which leads out of the root")
    return str(path)


def _require_kind(member: tarfile.TarInfo) -> None:
    if member.ischr() or member.isblk():
        raise Refused("it is a device, which no image may have; make the archive without /dev/*")
    known = member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isfifo()
    if not known or member.type not in tarfile.SUPPORTED_TYPES:
        raise Refused(f"it has an unknown type ({member.type!r})")


@contextmanager
def _parent(tree: Path, name: str) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the folder that holds ``name``, and the last part of ``name``. Follow no links."""
    *parents, base = PurePosixPath(name).parts or (".",)
    folder = os.open(tree, _FOLDER)
    try:
        for number, part in enumerate(parents):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            try:
                inner = os.open(part, _FOLDER, dir_fd=folder)
            except OSError as err:
                through = printable("/".join(parents[: number + 1]))
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
            raise Refused("an earlier member of that name is no directory") from err


def _clear(folder: int, base: str) -> None:
    """Remove a file that an earlier member of the same name made: the last one counts."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(base, dir_fd=folder)
    except IsADirectoryError as err:
        raise Refused("an earlier member of that name is a directory") from err


def _link(tree: Path, target: str, folder: int, base: str) -> None:
    with _parent(tree, target) as (source_folder, name):
        try:
            os.link(name, base, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as err:
            raise Refused(
                f"it is a hard link to {printable(target)}, which is no earlier file of the archive ({err.strerror})"
            ) from err


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: int, base: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with source, os.fdopen(os.open(base, _NEW, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        left = member.size
        while left:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                raise tarfile.ReadError("it is truncated in the middle of a file")
            left -= len(chunk)
            if member.issparse() and not any(chunk):
                file.seek(len(chunk), os.SEEK_CUR)
            else:
                file.write(chunk)
        file.truncate(member.size)


def _set_metadata(tree: Path, name: str, member: tarfile.TarInfo) -> None:
    with _parent(tree, name) as (folder, base):
        _set_metadata_in(folder, base, member)


def _set_metadata_in(folder: int, base: str, member: tarfile.TarInfo) -> None:
    """Set owner, mode, extended attributes and time of a file, in this order: each resets some of those that follow."""
    os.chown(base, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
    if not member.issym():
        os.chmod(base, member.mode & 0o7777, dir_fd=folder)
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            _set_xattr(f"/proc/self/fd/{folder}/{base}", key.removeprefix(_XATTR), value)
    os.utime(base, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)


def _set_xattr(path: str, name: str, value: str) -> None:
    if name.startswith(OVERLAYS):
        raise Refused(f"it has the extended attribute {name}, which would hide files of the image")
    os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
