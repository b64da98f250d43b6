"""Write files as a tar stream. The same files always give the same bytes.

Files are sorted, owners are numeric, times are whole seconds. Extended attributes are stored as by GNU tar and bsdtar
(``SCHILY.xattr.``).
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from typing import IO

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export.tree import Entry

OnEntry = Callable[[Entry], None]
"""Called with each file after it was written."""

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write(out: IO[bytes], entries: Iterable[Entry], on_entry: OnEntry = lambda entry: None) -> None:
    """Write files as they are. ``on_entry`` is called with each."""
    with _Tar(out) as tar:
        for entry in entries:
            tar.put(entry)
            on_entry(entry)


def write_layer(out: IO[bytes], entries: Iterable[Entry], on_entry: OnEntry = lambda entry: None) -> None:
    """Write a layer of OCI: ``.wh.name`` hides that name in the layers below, ``.wh..wh..opq`` hides a whole directory.

    Raises CommandExecutionError for a file whose own name begins with ``.wh.``.
    """
    with _Tar(out) as tar:
        for entry in entries:
            folder, _, name = entry.path.rpartition("/")
            below = f"{folder}/" if folder else ""
            if name.startswith(_WHITEOUT):
                raise CommandExecutionError(
                    f"/{entry.path} cannot be in a layer of OCI, where a name that begins with .wh. hides a file; "
                    "export another format, or rename the file in the states of the recipe"
                )
            if entry.is_whiteout:
                tar.mark(f"{below}{_WHITEOUT}{name}")
            elif entry.path != ".":
                tar.put(entry)
                if entry.is_opaque:
                    tar.mark(f"{entry.path}/{_OPAQUE}")
            on_entry(entry)


class _Tar:
    """A tar stream with headers as GNU tar writes them.

    mksquashfs 4.5 drops the leading / of symbolic links from headers in pax format.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._size = 0
        self._first: dict[tuple[int, int], str] = {}

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self._write(bytes(2 * tarfile.BLOCKSIZE))
            self._write(bytes(-self._size % tarfile.RECORDSIZE))

    def put(self, entry: Entry) -> None:
        """Write a file. If it is a hard link to an earlier one, write a link to that."""
        kind = _KINDS.get(stat.S_IFMT(entry.info.st_mode))
        if kind is None:  # a socket, which the program that listens on it makes again
            return
        header, first = _header(entry, kind), self._linked(entry)
        if first:
            header.type, header.linkname, header.size = tarfile.LNKTYPE, first, 0
        self._write(_attributes(entry) + _bytes(header))
        if header.size:
            self._content(entry)

    def mark(self, path: str) -> None:
        """Write an empty file whose name is the information."""
        self._write(_bytes(tarfile.TarInfo(path)))

    def _content(self, entry: Entry) -> None:
        left = entry.size
        with open(entry.source, "rb", buffering=0) as file:
            while left and (chunk := file.read(min(left, _CHUNK))):
                self._write(chunk)
                left -= len(chunk)
        if left:
            raise CommandExecutionError(f"{entry.source} became shorter while it was read; export again")
        self._write(bytes(-entry.size % tarfile.BLOCKSIZE))

    def _linked(self, entry: Entry) -> str | None:
        """Return the first path under which a hard-linked file was written, or None."""
        if entry.info.st_nlink < 2 or stat.S_ISDIR(entry.info.st_mode):
            return None
        first = self._first.setdefault((entry.info.st_dev, entry.info.st_ino), entry.path)
        return first if first != entry.path else None

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._size += len(data)


def _header(entry: Entry, kind: bytes) -> tarfile.TarInfo:
    header, info = tarfile.TarInfo(entry.path), entry.info
    header.type, header.mode, header.size = kind, stat.S_IMODE(info.st_mode), entry.size
    header.uid, header.gid, header.mtime = info.st_uid, info.st_gid, int(info.st_mtime)
    if kind == tarfile.SYMTYPE:
        header.linkname = os.readlink(entry.source)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        header.devmajor, header.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    return header


def _attributes(entry: Entry) -> bytes:
    """Return the pax header with the extended attributes of a file, b'' if it has none. Their values are any bytes."""
    values = entry.xattrs().items()
    if not (text := b"".join(_record(f"SCHILY.xattr.{name}=".encode() + value + b"\n") for name, value in values)):
        return b""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, len(text)
    return _bytes(header) + text + bytes(-len(text) % tarfile.BLOCKSIZE)


def _record(text: bytes) -> bytes:
    """Return a pax record: its length, which counts its own digits, then the text."""
    size = len(text) + 2
    while len(b"%d " % size) + len(text) != size:
        size += 1
    return b"%d " % size + text


def _bytes(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
