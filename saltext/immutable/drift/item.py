"""One item of drift: one thing that differs from the image."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


class Item(NamedTuple):
    """One thing that differs from the image."""

    kind: str
    """manifest, file, service, package, user, group, mount, process, socket, login, or state (of a preview)."""
    what: str
    """A path, a unit, a name ..."""
    detail: str
    """What differs about it."""
    owner: str = ""
    """The Debian package of the file."""
    layer: str = ""
    """The name of its layer: ``states of web``."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as a mapping that can be sent and printed: bytes of file names that cannot are escaped."""
        return {name: _UNPRINTABLE.sub(_escaped, value) for name, value in self._asdict().items()}


def _escaped(found: re.Match[str]) -> str:
    """Escape one character. Bytes that are not UTF-8 are lone surrogates here."""
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(found[0])[1:-1]
