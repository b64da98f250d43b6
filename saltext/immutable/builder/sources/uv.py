"""Find the program uv on this host."""

from __future__ import annotations

import shutil
from pathlib import Path

from salt.exceptions import CommandExecutionError


def find_uv() -> Path:
    """Return the uv binary: that of our own Python environment, else the first on PATH.

    Raises CommandExecutionError where there is none.
    """
    try:
        import uv

        return Path(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise CommandExecutionError("uv is not installed on this host; run pip install 'saltext-immutable[master]'")
    return Path(found).resolve()
