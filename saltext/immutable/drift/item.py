"""One thing that is not as the image says."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_UNSHOWN = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


class Item(NamedTuple):
    """What drifted."""

    kind: str
    """manifest, file, service, package, user, group, mount, process, socket, login, or state (of a preview)."""
    what: str
    """A path, a unit, a name ..."""
    detail: str
    """What is different about it."""
    owner: str = ""
    """The Debian package that brought the file."""
    layer: str = ""
    """The layer that it is from, as people call it: ``states of web``."""

    def told(self) -> dict[str, Any]:
        """Return it as a mapping that every wire and terminal takes: a name can be any bytes."""
        return {name: _UNSHOWN.sub(_escaped, value) for name, value in self._asdict().items()}


def _escaped(found: re.Match[str]) -> str:
    """Bytes that are no UTF-8 came as lone surrogates."""
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(found[0])[1:-1]
