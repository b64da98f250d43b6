"""Take out of a layer what belongs to one machine, or only to its making."""

from __future__ import annotations

import os
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


def scrub(tree: Path) -> None:
    """Scrub one layer's tree; names of whiteouts and links are left alone, they hold nothing."""
    for pattern in _GONE:
        for found in tree.glob(pattern):
            if _own(tree, found.parent) and not _whiteout(found):
                remove(found)
    for key in tree.glob(_SSH_KEYS):
        remove(key)
        key.symlink_to(_OWN_SSH_KEYS / key.name)
    for name in _EMPTY:
        if os.path.lexists(tree / name):
            remove(tree / name)
            (tree / name).touch(mode=0o444)
    for folder, _, files in os.walk(tree / _LOGS) if _own(tree, tree / _LOGS) else ():
        for name in files:
            log = Path(folder, name)
            if log.is_file() and not log.is_symlink():
                os.truncate(log, 0)


def _own(tree: Path, folder: Path) -> bool:
    """Tell whether a folder is the tree's own: a link in an image (/var/tmp -> /tmp) leads to files of this host."""
    return folder.resolve() == tree.resolve() / folder.relative_to(tree)


def _whiteout(path: Path) -> bool:
    return path.is_char_device() and path.stat().st_rdev == 0

