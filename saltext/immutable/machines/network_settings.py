"""Settings of the kernel that belong to a machine's own network: what its image has of them in ``/etc/sysctl.d``.

In a machine ``/proc/sys`` is read-only, so its own systemd-sysctl cannot apply them; its host does, before it boots.
Settings of the host's kernel (``vm.*``, ``kernel.*``) are left out, and so are the defaults of the distribution.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from saltext.immutable.machines import overlay

_FOLDER = "etc/sysctl.d"
_LINE = re.compile(r"[ \t]*-?[ \t]*([A-Za-z0-9_./*-]+)[ \t]*=[ \t]*([!-~](?:[ -~\t]*[!-~])?)[ \t]*")
_OF_NETWORK = re.compile(r"net/[a-z0-9_]+(/([A-Za-z0-9_.-]+|\*))*/[a-z0-9_]+")
_FOR_OTHERS = re.compile(r"/(proxy|arp)_[a-z0-9_]+$")
"""Settings by which a machine answers for the addresses of others."""
_LONGEST, _MOST = 16_384, 500
"""Bytes of a file that are read, and settings of an image; a line has at most `_WIDTH` characters."""
_WIDTH = 200


def of_image(layers: Path, lower: Sequence[str]) -> list[str]:
    """Return a line for each setting, its path below ``/proc/sys`` (which may have a ``*``) and its value.

    ``lower``: short names of the image's layers, root first. A later line takes the place of an earlier one.
    """
    found = all_of_image(layers, lower)
    return [f"{path} {value}" for path, value in found.items() if _is_own(path)][:_MOST]


def all_of_image(layers: Path, lower: Sequence[str]) -> dict[str, str]:
    """Return all settings of the kernel that an image has in ``/etc/sysctl.d``: path below ``/proc/sys`` -> value."""
    found: dict[str, str] = {}
    for line in lines(layers, lower, _FOLDER):
        if setting := _LINE.fullmatch(line):
            path = _path(setting[1])
            found.pop(path, None)
            found[path] = setting[2]
    return found


def lines(layers: Path, lower: Sequence[str], folder: str) -> Iterator[str]:
    """Yield the lines of the ``*.conf`` files in a folder of an image, in the order in which systemd reads them."""
    for name in sorted(overlay.names(layers, lower, folder)):
        file = _file(layers, lower, f"{folder}/{name}") if name.endswith(".conf") else None
        if file is not None:
            with file.open("rb") as opened:
                text = opened.read(_LONGEST).decode(errors="replace")
            yield from (line for line in text.split("\n") if len(line) <= _WIDTH)


def _is_own(path: str) -> bool:
    return bool(_OF_NETWORK.fullmatch(path)) and ".." not in path and not _FOR_OTHERS.search(path)


def _file(layers: Path, lower: Sequence[str], path: str) -> Path | None:
    """Return the file of the image at a path, or the one that a link there leads to in the image."""
    link = next((each for name in reversed(lower) if os.path.lexists(each := layers / name / path)), None)
    if link is not None and link.is_symlink():
        path = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), os.readlink(link))).lstrip("/")
    return overlay.top_file(layers, lower, path)


def _path(key: str) -> str:
    """Return the path of a setting: dots and slashes change places where the first of them is a dot (sysctl.d(5))."""
    first = re.search(r"[./]", key)
    return key.translate(str.maketrans("./", "/.")) if first and first[0] == "." else key
