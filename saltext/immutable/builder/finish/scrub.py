"""Remove from a layer what belongs to one machine or to the bake only; replace dates of the bake by a fixed day."""

from __future__ import annotations

import os
import re
from pathlib import Path

from saltext.immutable.builder.finish.caches import OF_ONE_BAKE
from saltext.immutable.host import remove

# Globs of what is removed beside `caches`. Files that this layer changed are in it, also where one below has them.
_REMOVED = (
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
    "var/cache/ldconfig/*",
    "var/cache/salt/*",
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
# Files that are emptied where the layer has them: systemd makes a machine-id at the first boot.
_EMPTIED = ("etc/machine-id",)
_SSH_KEYS = "etc/ssh/ssh_host_*_key*"
_OWN_SSH_KEYS = Path("/var/lib/immutable/etc/ssh")
"""Where immutable-ssh-host-keys.service makes the host keys of each machine."""
_LOGS = "var/log"
_CRONTABS = "var/spool/cron/crontabs/*"
_INSTALLED = re.compile(rb"^# \(\S+ installed on .*\)$", re.MULTILINE)
"""The line with date and temporary file that crontab(1) writes at the top of each table."""
_INSTALLED_ONCE = b"# (- installed on Thu Jan  1 00:00:00 1970)"
"""In its place. Without it crontab(1), which leaves out three lines, would leave out one of the table's own."""
_SHADOW_FILES = ("etc/shadow", "etc/shadow-")
_NO_MAX_AGE = re.compile(rb"^([^:\n]*:[^:\n]*):[1-9]\d*:([^:\n]*:(?:99999)?:)", re.MULTILINE)
"""The day of the last password change, of accounts whose password never expires. A 0 (change at next login) stays."""
_FIXED_DAY = b"18262"
"""2020-01-01, in days since 1970 as in /etc/shadow."""


def scrub(tree: Path) -> None:
    """Scrub the tree of one layer. Whiteouts and the names of links stay: they hold no content."""
    for pattern in (*OF_ONE_BAKE, *_REMOVED):
        for found in tree.glob(pattern):
            if is_real(tree, found.parent) and not _is_whiteout(found):
                remove(found)
    for key in (found for found in tree.glob(_SSH_KEYS) if is_real(tree, found.parent)):
        remove(key)
        key.symlink_to(_OWN_SSH_KEYS / key.name)
    for name in _EMPTIED:
        if os.path.lexists(tree / name) and is_real(tree, (tree / name).parent):
            remove(tree / name)
            (tree / name).touch(mode=0o444)
    for file in tree.glob(_CRONTABS):
        _edit(tree, file, _INSTALLED, _INSTALLED_ONCE)
    for name in _SHADOW_FILES:
        _edit(tree, tree / name, _NO_MAX_AGE, rb"\1:" + _FIXED_DAY + rb":\2")
    for folder, _, files in os.walk(tree / _LOGS) if is_real(tree, tree / _LOGS) else ():
        for name in files:
            log = Path(folder, name)
            if log.is_file() and not log.is_symlink():
                os.truncate(log, 0)


def _edit(tree: Path, file: Path, old: re.Pattern[bytes], new: bytes) -> None:
    """Replace what matches ``old`` in a regular file of the tree; do nothing where there is none."""
    if file.is_file() and not file.is_symlink() and is_real(tree, file.parent):
        file.write_bytes(old.sub(new, file.read_bytes()))


def is_real(tree: Path, folder: Path) -> bool:
    """Return whether a folder is reached without a link or ``..``: /var/tmp -> /tmp in a tree leads to this host's."""
    return Path(os.path.realpath(folder)) == Path(os.path.realpath(tree), folder.relative_to(tree))


def _is_whiteout(path: Path) -> bool:
    return path.is_char_device() and path.stat().st_rdev == 0
