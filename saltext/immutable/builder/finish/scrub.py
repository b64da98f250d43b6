"""Take out of a layer what belongs to one machine, or only to its making; also the day of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from saltext.immutable.host import remove

# Globs of what goes. What a bake wrote over a file of a layer below is in this layer, and that is where it goes.
_GONE = (
    "etc/hostname",
    "etc/salt/minion_id",
    "etc/salt/minion.d/_schedule.conf",
    "etc/salt/pki",
    "etc/.pwd.lock",
    "root/.bash_history",
    "root/.cache",
    "run/*",
    "tmp/*",
    "tmp/.[!.]*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/*",
    "var/cache/salt/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dhcp/*.leases",
    "var/lib/immutable/etc/ssh/*",
    "var/lib/salt/pki",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/timers/*",
    "var/lib/systemd/timesync/clock",
    "var/log/journal/*",
    "var/log/salt/*",
    "var/tmp/*",
    "var/tmp/.[!.]*",
)
# Files that become empty where the layer has them: each boot makes its own machine-id.
_EMPTY = ("etc/machine-id",)
_SSH_KEYS = "etc/ssh/ssh_host_*_key*"
_OWN_SSH_KEYS = Path("/var/lib/immutable/etc/ssh")
"""Where immutable-ssh-host-keys.service makes those of one machine."""
_LOGS = "var/log"
_CRONTABS = "var/spool/cron/crontabs/*"
_INSTALLED = re.compile(rb"^# \(\S+ installed on .*\)\n", re.MULTILINE)
"""When, and from which temporary file: crontab(1) writes it over each table."""
_SHADOWS = ("etc/shadow", "etc/shadow-")
_AGELESS = re.compile(rb"^([^:\n]*:[^:\n]*):[1-9]\d*:([^:\n]*:(?:99999)?:)", re.MULTILINE)
"""Of who never need change a password: the day on which it was changed last; 0 means that it must be now."""
_DAY = b"18262"
"""2020-01-01, as /etc/shadow counts."""


def scrub(tree: Path) -> None:
    """Scrub one layer's tree; names of whiteouts and links are left alone, they hold nothing."""
    for pattern in _GONE:
        for found in tree.glob(pattern):
            if _own(tree, found.parent) and not _whiteout(found):
                remove(found)
    for key in (found for found in tree.glob(_SSH_KEYS) if _own(tree, found.parent)):
        remove(key)
        key.symlink_to(_OWN_SSH_KEYS / key.name)
    for name in _EMPTY:
        if os.path.lexists(tree / name) and _own(tree, (tree / name).parent):
            remove(tree / name)
            (tree / name).touch(mode=0o444)
    for file in tree.glob(_CRONTABS):
        _edit(tree, file, _INSTALLED, b"")
    for name in _SHADOWS:
        _edit(tree, tree / name, _AGELESS, rb"\1:" + _DAY + rb":\2")
    for folder, _, files in os.walk(tree / _LOGS) if _own(tree, tree / _LOGS) else ():
        for name in files:
            log = Path(folder, name)
            if log.is_file() and not log.is_symlink():
                os.truncate(log, 0)


def _edit(tree: Path, file: Path, old: re.Pattern[bytes], new: bytes) -> None:
    """Take the day of the bake out of a file."""
    if file.is_file() and not file.is_symlink() and _own(tree, file.parent):
        file.write_bytes(old.sub(new, file.read_bytes()))


def _own(tree: Path, folder: Path) -> bool:
    """Tell whether a folder is the tree's own: a link in an image (/var/tmp -> /tmp) leads to files of this host."""
    return folder.resolve() == tree.resolve() / folder.relative_to(tree)


def _whiteout(path: Path) -> bool:
    return path.is_char_device() and path.stat().st_rdev == 0

