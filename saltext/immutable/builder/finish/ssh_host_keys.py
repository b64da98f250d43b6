"""SSH host keys: no image has them. Each machine makes its own at its first boot, where links of the image lead."""

from __future__ import annotations

from pathlib import Path

from saltext.immutable.host import remove

KEYS = "etc/ssh/ssh_host_*_key*"
"""A glob of the files in a tree."""
_OF_MACHINE = Path("/var/lib/immutable/etc/ssh")
"""Where immutable-ssh-host-keys.service makes the host keys of each machine."""


def leave_to_machines(key: Path) -> None:
    """Replace a key in a tree, private or public, by a link to that of each machine."""
    remove(key)
    key.symlink_to(_OF_MACHINE / key.name)
