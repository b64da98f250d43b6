"""What an image wants of the kernel, which a machine shares with its host: settings and modules that are not there.

Reads the image's own files, so that it is the same for whoever wrote them. Changes nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from saltext.immutable import kernel
from saltext.immutable.machines import network_settings
from saltext.immutable.text import plain

_MODULES = "etc/modules-load.d"
_MODULE = re.compile(r"[ \t]*([A-Za-z0-9_-]{1,60})[ \t]*")
_SETTING = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
"""A path below /proc/sys and nowhere else."""
_OF_MACHINE = re.compile(
    r"net/core/(somaxconn|txrehash|rps_default_mask|xfrm_\w+)|net/(?!core/|nf_conntrack_max$|netfilter/nf_conntrack_(max|buckets)$"
    r"|ipv4/(tcp_mem|udp_mem|tcp_max_orphans|tcp_allowed_congestion_control)$).*|kernel/(hostname|domainname)"
)
"""Settings that each machine has for itself. Of ``net`` some are its host's: networks read them only, or not at all."""
_OF_IPC = re.compile(r"kernel/(auto_msgmni|msg[a-z0-9_]+|sem[a-z0-9_]*|shm[a-z0-9_]+)|fs/mqueue/[a-z0-9_]+")
"""Settings that a machine has for itself, and that nobody sets there."""
_MOST, _WIDTH, _LONGEST = 20, 80, 4096
"""Sentences about one image, characters of a value, bytes that are read of it."""


def unmet(layers: Path, lower: Sequence[str], root: Path = Path("/")) -> list[str]:
    """Return a sentence for each setting and module of an image that its host's kernel does not have.

    ``lower``: short names of the image's layers, root first; ``root``: where ``proc`` and ``sys`` of the host are.
    """
    found = chain(_settings(layers, lower, root), _modules(layers, lower, root))
    return list(islice(found, _MOST))


def _settings(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    for path, wanted in network_settings.all_of_image(layers, lower).items():
        name = path.replace("/", ".")
        if not _SETTING.fullmatch(path) or _OF_MACHINE.fullmatch(path):  # the image names the path: it may be any
            continue
        if _OF_IPC.fullmatch(path):
            yield f"{name}={wanted} has no effect: machines keep the kernel's own value"
            continue
        try:
            now = _read(root / "proc/sys" / path)
        except FileNotFoundError:
            yield f"the host needs {name}={wanted}: its kernel has no such setting"
            continue
        except OSError:  # one that cannot be read, vm.compact_memory
            continue
        if now.split() != wanted.split():
            yield f"the host needs {name}={wanted}: {plain(' '.join(now.split())[:_WIDTH])} now"


def _read(file: Path) -> str:
    """Return the beginning of a file; only of a regular one, which no link leads to."""
    with kernel.opened(str(file)) as opened:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise PermissionError(errno.EACCES, "not a regular file", str(file))
        return os.read(opened, _LONGEST).decode(errors="replace")


def _modules(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    built_in = _built_in(root)
    for line in network_settings.lines(layers, lower, _MODULES):
        module = _MODULE.fullmatch(line)
        name = module[1].replace("-", "_") if module else ""
        if name and name not in built_in and not (root / "sys/module" / name).exists():
            yield f"the host needs the module {name}: it is not loaded now"


def _built_in(root: Path) -> frozenset[str]:
    """Return the names of the modules that are part of the host's kernel."""
    try:
        text = (root / "lib/modules" / os.uname().release / "modules.builtin").read_text()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(Path(line).name.partition(".")[0].replace("-", "_") for line in text.splitlines())
