"""What Python itself writes beside custom modules: their compiled code. Salt loads it too, so it is compared."""

from __future__ import annotations

import importlib.util
import marshal
import os
from contextlib import suppress

MODULES = "var/cache/salt/minion/extmods/"
"""The folder of a minion's custom modules, which files of the image do not fill."""
_CACHE = "__pycache__"
_HEADER = 16
"""Bytes before the code: magic number, flags, time and size of the source (PEP 552)."""


def is_made_of_source(root: str, path: str, kind: str) -> bool:
    """Tell whether a file below MODULES is a cache of Python's that holds what the module beside it is compiled to."""
    folder, name = os.path.split(path)
    if not path.startswith(MODULES):
        return False
    if name == _CACHE:
        return kind == "dir"
    source = os.path.join(root, os.path.dirname(folder), f"{name.partition('.')[0]}.py")
    if kind != "file" or os.path.basename(folder) != _CACHE or not name.endswith(".pyc"):
        return False
    with suppress(OSError, EOFError, SyntaxError, TypeError, ValueError, ImportError):
        return _is_compiled(os.path.join(root, path), source)
    return False


def _is_compiled(path: str, source: str) -> bool:
    with open(path, "rb") as file:
        found = file.read()
    with open(source, "rb") as file:
        text = file.read()
    info = os.stat(source)
    numbers = [0, int(info.st_mtime) & 0xFFFFFFFF, info.st_size & 0xFFFFFFFF]
    header = importlib.util.MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in numbers)
    return found[:_HEADER] == header and marshal.loads(found[_HEADER:]) == compile(
        text, source, "exec", dont_inherit=True
    )
