"""Which files no call tells the content of: by them an operator could take the place of a machine, or read its memory.

Standard library only. It looks at the disk, so only calls that read files ask it.
"""

from __future__ import annotations

import os
import re

_SECRET = re.compile(
    r"/proc/(.*/)?(environ|mem|kcore|auxv|pagemap)|/proc/.*/(fd|map_files)/.*|/dev/(?!shm/).*|(/var)?/run/immutable/.*",
    re.DOTALL,
)
"""Variables and memory of processes, what they have open, devices, and the state of the guard."""
_KEYS = ("/etc/salt/pki", "/var/lib/salt/pki")


def is_secret(path: object, pki: object) -> bool:
    """Tell whether a path is that of such a file, or leads to one; ``pki``: where the minion has its keys."""
    if not isinstance(path, str | bytes):
        return False
    try:
        given = os.path.expanduser(os.fsdecode(path))
        found = {os.path.abspath(given), os.path.realpath(given)}
    except ValueError:  # no path: it holds a zero
        return False
    except OSError:  # nobody may follow it, or the process that it leads through ended
        return True
    keys = (*_KEYS, *(os.path.realpath(folder) for folder in (pki, *_KEYS) if isinstance(folder, str)))
    return any(_SECRET.fullmatch(each) or each.startswith(tuple(f"{key}/" for key in keys)) for each in found)
