"""One thing that is not as the image says."""

from __future__ import annotations

from typing import NamedTuple


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
