"""Which paths change by design. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DEFAULTS = (
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/etc/salt/minion.d/_schedule.conf",
    "/etc/salt/minion.d/zzz-machine.conf",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/var/backups",
    "/var/cache",
    "/var/lib/NetworkManager",
    "/var/lib/apt",
    "/var/lib/chrony",
    "/var/lib/dbus/machine-id",
    "/var/lib/dhcp",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/immutable",
    "/var/lib/logrotate",
    "/var/lib/ntpsec",
    "/var/lib/plocate",
    "/var/lib/private/systemd",
    "/var/lib/salt",
    "/var/lib/sudo",
    "/var/lib/systemd",
    "/var/lib/unattended-upgrades",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/run",
    "/var/spool/anacron",
    "/var/spool/exim4",
    "/var/spool/mail",
    "/var/spool/postfix",
    "/var/spool/rsyslog",
    "/var/tmp",
)
"""Of every machine: logs, caches, identity, and what the system itself remembers. Nothing that init, cron or the
loader of programs reads is among them; what *runs* from them is found as a process."""

GUARDED = (
    "/etc/immutable",
    "/etc/ld.so.preload",
    "/etc/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/var/lib/systemd/linger",
    "/var/spool/cron",
)
"""What makes programs run is hidden by no pattern for a folder above it, only by one that names the path itself."""


class Mutable:
    """The paths that may differ: patterns of absolute paths, each with all that is below it.

    ``*`` and ``?`` stop at a slash, ``**`` does not. Paths are asked for as manifests have them: ``var/log/syslog``.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        plain = sorted({pattern.strip("/") for pattern in patterns if pattern.strip("/")})
        guarded = [path.strip("/") for path in GUARDED]
        named = [pattern for pattern in plain if any(_covers(path, pattern) for path in guarded)]
        self._guarded = guarded
        self._is_guarded = _regex(guarded)
        self._named = _regex(named)
        self._others = _regex([pattern for pattern in plain if pattern not in named])

    def hides(self, path: str) -> bool:
        """Tell whether a path may differ."""
        if self._is_guarded(path):
            return self._named(path)
        return self._others(path)

    def closes(self, folder: str) -> bool:
        """Tell whether nothing below a folder needs a look."""
        return self.hides(folder) and not any(path.startswith(f"{folder}/") for path in self._guarded)


def _covers(above: str, path: str) -> bool:
    return path == above or path.startswith(f"{above}/")


class _regex:
    """Match any of these patterns, or what is below what they match."""

    def __init__(self, patterns: list[str]) -> None:
        joined = "|".join("".join(_translated(pattern)) for pattern in patterns)
        self._match = re.compile(f"(?:{joined})(?:/.*)?", re.DOTALL).fullmatch if patterns else lambda path: None

    def __call__(self, path: str) -> bool:
        return self._match(path) is not None


def _translated(pattern: str) -> Iterator[str]:
    for part in re.split(r"(\*\*|\*|\?)", pattern):
        yield {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part)
