"""What an image wants of the kernel, which a machine shares with its host: settings and modules that are not there.

Reads the image's own files, so that it is the same for whoever wrote them. Changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from saltext.immutable.machines import network_settings

_MODULES = "etc/modules-load.d"
_MODULE = re.compile(r"[ \t]*([A-Za-z0-9_-]{1,60})[ \t]*")
_OF_MACHINE = re.compile(r"net/.*|kernel/(hostname|domainname)")
"""Settings that each machine has for itself."""
_OF_IPC = re.compile(r"kernel/(auto_msgmni|msg\w+|sem\w*|shm\w+)|fs/mqueue/\w+")
"""Settings that a machine has for itself, and that nobody sets there."""
_MOST = 20
"""Sentences about one image."""


def unmet(layers: Path, lower: Sequence[str], root: Path = Path("/")) -> list[str]:
    """Return a sentence for each setting and module of an image that its host's kernel does not have.

    ``lower``: short names of the image's layers, root first; ``root``: where ``proc`` and ``sys`` of the host are.
    """
    return [*_settings(layers, lower, root), *_modules(layers, lower, root)][:_MOST]


def _settings(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    for path, wanted in network_settings.all_of_image(layers, lower).items():
        name = path.replace("/", ".")
        if _OF_MACHINE.fullmatch(path) or ".." in path or "*" in path:
            continue
        if _OF_IPC.fullmatch(path):
            yield f"{name}={wanted} has no effect: machines keep the kernel's own value"
            continue
        try:
            now = (root / "proc/sys" / path).read_text()
        except (OSError, ValueError):
            yield f"the host needs {name}={wanted}: its kernel has no such setting"
            continue
        if now.split() != wanted.split():
            yield f"the host needs {name}={wanted}: {' '.join(now.split())[:80]} now"


def _modules(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    for line in network_settings.lines(layers, lower, _MODULES):
        module = _MODULE.fullmatch(line)
        if module and not (root / "sys/module" / module[1].replace("-", "_")).exists():
            yield f"the host needs the module {module[1]}: it is not loaded now"

