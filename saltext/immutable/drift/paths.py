"""Which paths change by design. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

DEFAULTS = (
    "/dev",
    "/etc/.pwd.lock",
    "/etc/.updated",
    "/etc/adjtime",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/etc/salt/minion.d/_schedule.conf",
    "/etc/salt/minion.d/zzz-machine.conf",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/var/.updated",
    "/var/backups",
    "/var/cache",
    "/var/lib/NetworkManager",
    "/var/lib/apt",
    "/var/lib/chrony",
    "/var/lib/dbus/machine-id",
    "/var/lib/dhcp",
    "/var/lib/dhcpcd",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/immutable",
    "/var/lib/lastlog",
    "/var/lib/logrotate",
    "/var/lib/ntpsec",
    "/var/lib/plocate",
    "/var/lib/private/systemd",
    "/var/lib/rsyslog",
    "/var/lib/salt",
    "/var/lib/sudo",
    "/var/lib/systemd",
    "/var/lib/unattended-upgrades",
    "/var/lib/wtmpdb",
    "/var/log",
    "/var/mail",
    "/var/spool/anacron",
    "/var/spool/exim4",
    "/var/spool/mail",
    "/var/spool/postfix",
    "/var/spool/rsyslog",
    "/var/tmp",
)
"""Of every machine: logs, caches, identity, and what the system itself remembers. Nothing that init, cron or the
loader of programs reads is among them; what *runs* from them is found as a process."""

_CLOSED = ("dev", "proc", "sys")
"""Not looked into at all: the kernel's own."""

GUARDED = (
    "/etc/immutable",
    "/etc/ld.so.preload",
    "/etc/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/system-environment-generators",
    "/run/systemd/system-generators",
    "/run/udev/rules.d",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/var/cache/salt/minion/extmods/**.py",
    "/var/lib/systemd/linger",
    "/var/spool/cron",
)
"""What makes programs run is hidden by no pattern for a folder above it, only by one that names the path itself."""


_MADE = ("var/lib/systemd/linger",)
"""Guarded folders that are made by the system itself, empty: only what is in them tells."""


class Mutable:
    """The paths that may differ: patterns of absolute paths, each with all that is below it.

    ``*`` and ``?`` stop at a slash, ``**`` does not. Paths are asked for as manifests have them: ``var/log/syslog``.
    """

    def __init__(self, declared: Iterable[str], defaults: Iterable[str] = DEFAULTS) -> None:
        plain = sorted({pattern.strip("/") for pattern in declared if pattern.strip("/")})
        self._guarded = [path.strip("/") for path in GUARDED]
        named = [pattern for pattern in plain if any(_covers(path, pattern) for path in self._guarded)]
        self._is_guarded = _any(self._guarded)
        self._named = _any(named)
        self._declared = _any([pattern for pattern in plain if pattern not in named])
        self._default = _any([path.strip("/") for path in defaults])

    def hides(self, path: str) -> bool:
        """Tell whether a path may differ."""
        if self._is_guarded(path):
            return path in _MADE or self._named(path)
        return self._default(path) or self._declared(path)

    def closes(self, folder: str) -> bool:
        """Tell whether nothing below a folder needs a look.

        Our own defaults are looked into all the same, for what must not even be there; they hold no great trees.
        """
        declared = self._named(folder) or (self._declared(folder) and not self._is_guarded(folder))
        return (folder in _CLOSED or declared) and not any(path.startswith(f"{folder}/") for path in self._guarded)


def _covers(above: str, path: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _any(patterns: list[str]) -> Callable[[str], bool]:
    """Return what matches any of these patterns, and what is below what they match."""
    if not patterns:
        return lambda path: False
    joined = "|".join("".join(_translated(pattern)) for pattern in patterns)
    match = re.compile(f"(?:{joined})(?:/.*)?", re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _translated(pattern: str) -> Iterator[str]:
    for part in re.split(r"(\*\*|\*|\?)", pattern):
        yield {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part)
