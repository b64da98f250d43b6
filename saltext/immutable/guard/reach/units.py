"""Which units of systemd may be started, stopped, restarted and reloaded on a sealed machine.

`unfit` is pure and judges one name. A unit may have several, so `unfit_alias` and `foreign` read where systemd takes it
from. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from saltext.immutable.guard.function_tables import NEVER_OPERATED, OPERATED_TYPES, SYSTEM_TARGETS, UNIT_TYPES
from saltext.immutable.guard.seal import read_regular

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
_DROP_INS, _LINKS = ".d", (".wants", ".requires", ".upholds")
"""Of folders that add to a unit; they are named after it, a prefix of it, its template or its type."""
_HARMLESS = re.compile(
    r"""|[#;].*|\[[A-Za-z]+\]
    |(NoNewPrivileges|ProcSubset|Protect[A-Za-z]+|Private(Devices|Network|Tmp))[ \t]*=[ \t]*[a-z-]*
    |(LoadCredential|LoadCredentialEncrypted|ImportCredential|ReadWritePaths)[ \t]*=""",
    re.VERBOSE,
)
"""Lines of a drop-in by which no other code runs and no other file is seen. At each boot of a container, the
generator of LXC writes such a one for all services, into ``run/systemd/system/service.d``."""
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


def unfit_alias(name: str, stops: bool, root: str = "/") -> str | None:
    """Return why a unit may not be operated by any of its names, or None."""
    return next(filter(None, (unfit(one, stops) for one in _names(name, root))), None)


def foreign(name: str, root: str = "/") -> str | None:
    """Return the file by which a unit is not, or not wholly, the image's; None if it is."""
    names = [file for one in _names(name, root) for file in _files(one)]
    suspects = [f"{folder}/{one}" for folder in (*ADDED, *GENERATED) for one in names]
    bases = {base: None for one in names for base in _bases(one)}
    suspects += [f"{folder}/{base}{end}" for folder in ADDED for base in bases for end in _LINKS]
    if present := next((path for path in suspects if os.path.lexists(os.path.join(root, path))), None):
        return f"/{present}"
    if harmful := _harmful_drop_in(bases, root):
        return f"/{harmful}"
    if any(os.path.lexists(os.path.join(root, folder, one)) for folder in IMAGE for one in names):
        return None
    if any(_is_script(one, root) for one in names):
        return None
    return f"{'.'.join(_split(name))} (no unit of this image has this name)"


def _split(name: str) -> tuple[str, str]:
    """Return name and type: ``("nginx", "service")``, ``("php8.2-fpm", "service")``."""
    stem, _, kind = name.rpartition(".")
    return (stem, kind) if stem and kind in _TYPES else (name, "service")


def _names(name: str, root: str) -> list[str]:
    """Return all names of a unit: the one given, the unit that it is an alias of, and the other aliases of that."""
    found, links = [".".join(_split(name))], list(_links(root))
    for one in found:  # it grows
        for pair in links:
            for known, other in (pair, pair[::-1]):
                if known in _files(one):
                    found += [new for new in [_instance(other, one)] if new not in found]
    return found


def _links(root: str) -> Iterator[tuple[str, str]]:
    """Yield each alias among the units of an image, and what it is an alias of."""
    for folder in IMAGE:
        with suppress(OSError), os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if entry.is_symlink() and (target := os.path.basename(os.readlink(entry))) not in (entry.name, "null"):
                    yield entry.name, target


def _files(name: str) -> list[str]:
    """Return the names of a unit's files: its own, and its template's."""
    stem, kind = _split(name)
    template, is_instance, _ = stem.partition("@")
    return list(dict.fromkeys([f"{stem}.{kind}", f"{template}@.{kind}"])) if is_instance else [f"{stem}.{kind}"]


def _instance(name: str, like: str) -> str:
    """Return the instance of a template that has the same word after ``@`` as ``like``; any other name as it is."""
    stem, kind = _split(name)
    return f"{stem}{_split(like)[0].partition('@')[2]}.{kind}" if stem.endswith("@") else name


def _bases(name: str) -> Iterator[str]:
    """Yield what folders that add to a unit are named after: ``a-b@c.service``, ``a-@c.service``, ``a-.service`` ..."""
    stem, kind = _split(name)
    prefix, at, instance = stem.partition("@")
    yield from (name, kind)
    for end, letter in enumerate(prefix[:-1], start=1):
        if letter == "-":
            yield from (f"{prefix[:end]}{at}{instance}.{kind}", f"{prefix[:end]}.{kind}")


def _harmful_drop_in(bases: Collection[str], root: str) -> str | None:
    """Return the drop-in, or the folder of them, that came later and may do harm; None if there is none.

    One with the name of a drop-in of the image would take its place.
    """
    of_image = {file for folder in IMAGE for base in bases for file in _entries(f"{root}/{folder}/{base}{_DROP_INS}")}
    for path in (f"{folder}/{base}{_DROP_INS}" for folder in ADDED for base in bases):
        found = _entries(f"{root}/{path}")
        if not found and os.path.lexists(f"{root}/{path}"):
            return path
        if harmful := next((one for one in found if one in of_image or not _is_harmless(f"{root}/{path}/{one}")), None):
            return f"{path}/{harmful}"
    return None


def _entries(folder: str) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _is_harmless(path: str) -> bool:
    """Tell whether each line of a drop-in is; systemd ends a line at any of these characters."""
    with suppress(OSError, ValueError):
        return all(_HARMLESS.fullmatch(line.strip(" \t")) for line in re.split(r"[\n\r\0]", read_regular(path)))
    return False


def _is_script(name: str, root: str) -> bool:
    """Tell whether systemd made a unit from a script of the image in ``/etc/init.d``."""
    script = os.path.join(root, SCRIPTS, name.removesuffix(".service"))
    return os.path.lexists(os.path.join(root, SYSV, name)) and os.path.isfile(script)
