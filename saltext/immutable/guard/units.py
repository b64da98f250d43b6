"""Which units of systemd may be started, stopped, restarted and reloaded on a sealed machine.

`unfit` is pure. `foreign` reads where systemd takes the unit from. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from saltext.immutable.guard.functions import NEVER_OPERATED, OPERATED_TYPES, SYSTEM_TARGETS, UNIT_TYPES

_TYPES, _OPERATED = frozenset(UNIT_TYPES.split()), frozenset(OPERATED_TYPES.split())
_SYSTEM_TARGETS = frozenset(SYSTEM_TARGETS.split())
_NAME = re.compile(r"[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,254}")
"""A glob would name any unit, and an option is none."""
IMAGE = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
"""Where the units of an image are."""
ADDED = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/system",
    "run/systemd/system.attached",
)
"""Where units and drop-ins are added to a machine that runs."""
GENERATED = ("run/systemd/generator.early", "run/systemd/generator")
"""Where generators write at the boot. Their drop-ins are the image's own work, as are links that enable units."""
SYSV, SCRIPTS = "run/systemd/generator.late", "etc/init.d"
"""systemd makes units from the scripts of an image: those are the image's own."""


def is_name(name: str) -> bool:
    """Return whether a text can be the name of one unit."""
    return bool(_NAME.fullmatch(name))


def unfit(name: object, stops: bool) -> str | None:
    """Return why a unit of this name may not be operated, or None; ``stops``: it would end."""
    if name is None:  # Salt itself asks for it
        return None
    if not isinstance(name, str) or not is_name(name):
        return "it takes the plain name of one unit"
    stem, kind = _split(name)
    if kind not in _OPERATED:
        return f"{name} is of type {kind}; only units of type {', '.join(sorted(_OPERATED))} are operated"
    if kind == "target" and stem in _SYSTEM_TARGETS:
        return f"{name} belongs to systemd itself"
    if glob := next((glob for glob in NEVER_OPERATED if fnmatchcase(stem, glob)), None):
        return f"{name}: {NEVER_OPERATED[glob]}"
    if stops and stem == "salt-minion":
        return f"without {name} nobody could reach this machine; restart it instead"
    return None


def foreign(name: str, root: str = "/") -> str | None:
    """Return the file by which a unit is not, or not wholly, the image's; None if it is."""
    names = list(_names(name, root))
    suspects = [f"{folder}/{one}{part}" for folder in ADDED for one in names for part in ("", ".d")]
    suspects += [f"{folder}/{one}" for folder in GENERATED for one in names]
    if present := next((path for path in suspects if os.path.lexists(os.path.join(root, path))), None):
        return f"/{present}"
    if any(os.path.lexists(os.path.join(root, folder, one)) for folder in IMAGE for one in names):
        return None
    if any(_is_script(one, root) for one in names):
        return None
    return f"{'.'.join(_split(name))} (no unit of this image has this name)"


def _split(name: str) -> tuple[str, str]:
    """Return name and type: ``("nginx", "service")``, ``("php8.2-fpm", "service")``."""
    stem, _, kind = name.rpartition(".")
    return (stem, kind) if stem and kind in _TYPES else (name, "service")


def _names(name: str, root: str) -> Iterator[str]:
    """Yield the names of a unit's files: its own, its template's, and that of the unit that it is an alias of."""
    stem, kind = _split(name)
    own = [f"{stem}.{kind}"]
    if "@" in stem:
        own.append(f"{stem.partition('@')[0]}@.{kind}")
    yield from own
    for folder in IMAGE:
        for one in own:
            path = os.path.join(root, folder, one)
            if os.path.islink(path) and (target := os.path.basename(os.readlink(path))) not in (*own, "null"):
                yield target


def _is_script(name: str, root: str) -> bool:
    """Tell whether systemd made a unit from a script of the image in ``/etc/init.d``."""
    script = os.path.join(root, SCRIPTS, name.removesuffix(".service"))
    return os.path.lexists(os.path.join(root, SYSV, name)) and os.path.isfile(script)
