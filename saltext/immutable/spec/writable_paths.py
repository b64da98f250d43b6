"""Read the paths of a recipe: what may differ from the image, where its machines write, and where programs run.

What the system runs, or decides by, is no data: drift there must be found, and no machine may write there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import PurePosixPath

from saltext.immutable.patterns import expression
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Definitions
from saltext.immutable.spec.origins import ParentImage
from saltext.immutable.spec.sources import PATH, matching
from saltext.immutable.text import quoted

# A path must also be valid in a systemd unit and in the options of an overlay mount.
_DIRECTORY = r"(/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*|/\.[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)+"
ALWAYS_WRITABLE = ("/dev/shm", "/run", "/tmp", "/var")
_NEVER_WRITABLE = {
    "/proc /sys /dev /run /tmp": "it is not part of the image: each boot makes it again",
    "/var/cache/salt /var/lib/systemd": "what Salt loads and systemd starts is there",
}
"""Trees that are mutable anyway, but for what makes programs run; a writable folder would name that, too."""
_OF_THE_IMAGE = {
    "/bin /boot /lib /lib32 /lib64 /libx32 /sbin /usr": "the image's own programs are there",
    "/opt/salt": "Salt and this pack are there",
    "/etc/immutable": "the seal is there",
}
"""Trees of which nothing is mutable or writable, and why."""
_OF_GRUB = "/boot/grub/grubenv"
"""GRUB itself writes this file when it boots, so it may be mutable: it alone in its tree."""
_OF_THE_SYSTEM = {
    "/etc/salt /etc/salt/minion.d": "the minion's config is there",
    "/etc/systemd /etc/systemd/system /etc/systemd/user": "the units that a machine starts are there",
    "/etc/cron.d /etc/cron.daily /etc/cron.hourly /etc/cron.monthly /etc/cron.weekly /etc/init.d /etc/profile.d "
    "/etc/update-motd.d /var/spool/cron /var/spool/cron/crontabs": "the system runs what is there",
    "/etc/apparmor.d /etc/apt /etc/dbus-1 /etc/ld.so.conf.d /etc/modprobe.d /etc/modules-load.d /etc/pam.d "
    "/etc/security /etc/ssh /etc/ssl/certs /etc/sudoers.d /etc/sysctl.d /etc/tmpfiles.d /etc/udev /etc/udev/rules.d "
    "/root/.ssh": "what is loaded, and who may do what, is decided there",
    "/var/lib/dpkg /var/lib/dpkg/info": "what is installed is written there",
    "/var/lib/immutable /var/lib/salt": "the state of Salt and this pack is there",
}
"""Folders of which only single files are mutable, nothing is writable, and why."""
_TREES = [path for paths in _OF_THE_IMAGE for path in paths.split()]
_FOLDERS = sorted(
    {str(above) for paths in _OF_THE_SYSTEM for path in paths.split() for above in PurePosixPath(path, "x").parents}
)
"""Those of the system, and all that are above them."""
_FILES = """
    /etc/bash.bashrc /etc/crontab /etc/environment /etc/group /etc/gshadow /etc/ld.so.cache /etc/ld.so.conf
    /etc/ld.so.preload /etc/nsswitch.conf /etc/passwd /etc/profile /etc/rc.local /etc/shadow /etc/subgid /etc/subuid
    /etc/sudoers /root/.bash_profile /root/.bashrc /root/.profile
"""
"""Files that are never mutable: who may do what, and what every program or shell begins with."""
_SHARED = (*ALWAYS_WRITABLE, "/var/cache", "/var/log", "/var/tmp")
"""Where many programs write: programs run in folders of these at most."""
_PROBE = "~probe~"
"""The name of a file that no folder has: a pattern that holds it holds all files beside it."""
_RUNS_ANYWAY = "is not where machines write, and programs run there anyway; take it out"
_OTHERS = "name the files or folders that change by design, such as /srv/data"


def mutable(value: object) -> tuple[str, ...]:
    """Read patterns of paths that change by design."""
    found = tuple(matching(PATH, word, "an absolute path; write /srv/data") for word in reading.words(value))
    for pattern in found:
        if why := next(_held(pattern), None):
            raise ValueError(f"{quoted(pattern)} {why}, so drift there would never be found; {_OTHERS}")
    return found


def _held(pattern: str) -> Iterator[str]:
    """Yield what of the system a pattern holds, as the end of a sentence."""
    matches = re.compile(expression(pattern)).fullmatch
    for folder in _FOLDERS:
        if matches(folder) or matches(f"{folder.rstrip('/')}/{_PROBE}"):
            yield f"holds all of {folder}"
    if pattern != _OF_GRUB:
        yield from (f"reaches into {tree}" for tree in _TREES if _reaches(pattern, tree))
    yield from (f"holds {file}" for file in _FILES.split() if matches(file))


def _reaches(pattern: str, tree: str) -> bool:
    """Tell whether a pattern may match something in a tree, the tree itself, or a folder above it."""
    begin, deep, _ = pattern.partition("**")
    parts = f"{begin}{'*' if deep else ''}".split("/")
    return all(re.fullmatch(expression(part), name) for part, name in zip(parts, tree.split("/"), strict=False))


def writable(value: object) -> tuple[str, ...]:
    """Read folders of data besides /var that machines write to, none within another."""
    what = "a path of a directory; write /srv/data"
    found = tuple(matching(_DIRECTORY, word, what) for word in reading.words(value))
    for path in found:
        if why := _why_not(path, {**_NEVER_WRITABLE, **_OF_THE_IMAGE, **_OF_THE_SYSTEM}):
            raise ValueError(f"{path} cannot be writable: {why}; write a directory of data, such as /srv/data")
    if pair := _nested(found):
        raise ValueError(f"{pair[1]} is within {pair[0]}; write {pair[0]} alone")
    return found


def exec_folders(value: object) -> tuple[str, ...]:
    """Read folders in places that machines write to, in which programs run anyway."""
    what = "a path of a directory; write /var/lib/app"
    found = tuple(matching(_DIRECTORY, word, what) for word in reading.words(value))
    for path in found:
        if why := never_exec(path):
            raise ValueError(f"programs cannot run in all of {path}: {why}; write a folder of one, as /var/lib/app")
    return found


def never_exec(path: str) -> str | None:
    """Return why programs do not run in all of a folder where machines write, or None."""
    if path in _SHARED:
        return "many programs write there"
    return _why_not(path, {**_NEVER_WRITABLE, **_OF_THE_SYSTEM}) if path.startswith("/var/") else None


def _why_not(path: str, reasons: Mapping[str, str]) -> str | None:
    """Return why nobody may write to a folder with all that is in it."""
    found = (why for places, why in reasons.items() if any(_overlap(path, place) for place in places.split()))
    return next(found, None)


def _overlap(one: str, other: str) -> bool:
    """Tell whether one of two paths is the other, or is within it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _nested(paths: Sequence[str]) -> tuple[str, str] | None:
    """Return a path and one within it."""
    pairs = combinations(sorted(set(paths)), 2)
    return next(((outer, inner) for outer, inner in pairs if _overlap(outer, inner)), None)


def overlapping_paths(definitions: Definitions) -> Iterator[tuple[str, str]]:
    """Yield ``(recipe, sentence)`` for each writable path that overlaps with an inherited one."""
    for name in definitions.recipes:
        found, *inherited = reversed(definitions.chain(name))
        for above in inherited:
            if pair := _nested([*found.writable, *above.writable]):
                outer, inner = pair
                yield name, f"{inner} is within {outer} (recipe {above.name!r} has one of them); write {outer} alone"


def useless_exec(definitions: Definitions) -> Iterator[tuple[str, str]]:
    """Yield ``(recipe, sentence)`` for each path of ``exec`` where machines do not write."""
    for name, found in definitions.recipes.items():
        chain = definitions.chain(name)
        if isinstance(chain[0].source, ParentImage):
            continue  # only the bake knows where its machines write, see `wrong_on_image`
        for path in _useless(found.exec, [path for recipe in chain for path in recipe.writable]):
            yield name, f"{path} {_RUNS_ANYWAY}"


def wrong_on_image(found: Mapping[str, Sequence[str]], given: Mapping[str, Sequence[str]]) -> str | None:
    """Return what is wrong with the paths of a recipe that is built on an image, as its key and a sentence.

    ``found``: ``writable`` and ``exec`` of the policy that it would have; ``given``: those of the image.
    """
    if pair := _nested(found["writable"]):
        of = " (the image that it is built from has one of them)" if set(pair) & set(given.get("writable", ())) else ""
        return f"writable: {pair[1]} is within {pair[0]}{of}; write {pair[0]} alone"
    useless = next(_useless(found["exec"], found["writable"]), None)
    return useless and f"exec: {useless} {_RUNS_ANYWAY}"


def _useless(exec_: Sequence[str], writable: Sequence[str]) -> Iterator[str]:
    places = [*ALWAYS_WRITABLE, *writable]
    yield from (path for path in exec_ if not any(f"{path}/".startswith(f"{place}/") for place in places))
