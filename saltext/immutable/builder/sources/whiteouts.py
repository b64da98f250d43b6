"""Whiteouts of OCI layers: members of an archive whose names say which files of lower layers are gone."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import PurePosixPath

_PREFIX = ".wh."
_OPAQUE = ".wh..wh..opq"
"""A folder with this member has nothing of lower layers."""
_META = ".wh..wh."
"""Names of the files and folders that aufs keeps for itself, such as ``.wh..wh.plnk``, begin so."""


class Whiteouts:
    """Removes what one layer hides of those below it. What the layer itself has written stays."""

    def __init__(self) -> None:
        self._written: set[str] = set()

    @staticmethod
    def leaves_out(path: str) -> bool:
        """Tell whether a member is one of those that aufs has for itself, or is in a folder of such."""
        *folders, name = PurePosixPath(path).parts or (".",)
        return any(part.startswith(_META) for part in (*folders, *([name] if name != _OPAQUE else [])))

    def note(self, path: str) -> None:
        """Note that a member of the layer was written, relative to its root, and with it its folders."""
        while path not in self._written:
            self._written.add(path)
            path = str(PurePosixPath(path).parent)

    def replaces(self, folder: int, path: str, directory: bool) -> None:
        """Remove what lower layers have at the path of a member that they cannot share: a folder is no file.

        ``folder``: a descriptor of the folder that holds it. ``directory``: whether the member is one.
        """
        name = PurePosixPath(path).name
        if path not in self._written and _is_directory(folder, name) not in (None, directory):
            _remove(folder, name)

    def carry_out(self, folder: int, path: str) -> bool:
        """Remove what the member ``path`` hides; return whether it is a whiteout."""
        name = PurePosixPath(path).name
        if not name.startswith(_PREFIX):
            return False
        if name == _OPAQUE:
            self._empty(folder, str(PurePosixPath(path).parent))
        else:
            hidden = name.removeprefix(_PREFIX)
            if hidden in ("", ".", ".."):
                raise ValueError("it is a whiteout of no file")
            if str(PurePosixPath(path).parent / hidden) not in self._written:
                _remove(folder, hidden)
        return True

    def _empty(self, folder: int, path: str) -> None:
        """Remove all that this layer has not written from a folder."""
        for name in os.listdir(folder):
            inner = str(PurePosixPath(path) / name)
            if inner not in self._written:
                _remove(folder, name)
            elif _is_directory(folder, name):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    self._empty(below, inner)
                finally:
                    os.close(below)


def _is_directory(folder: int, name: str) -> bool | None:
    """Tell whether there is a directory of that name; None: there is nothing."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _remove(folder: int, name: str) -> None:
    if _is_directory(folder, name):
        shutil.rmtree(f"/proc/self/fd/{folder}/{name}")
    else:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
