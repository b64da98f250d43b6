"""Mutable paths: those that change by design and may differ from the image. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from saltext.immutable.patterns import expression

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
"""Mutable on every machine: logs, caches, identity, and state of the system itself. Nothing that init, cron or ld.so
reads is among them; what *runs* from them is found as a process."""

_KERNEL = ("dev", "proc", "sys")
"""File systems of the kernel, which are not read at all."""

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
    "/var/cache/salt/minion/extmods",
    "/var/lib/systemd/linger",
    "/var/spool/cron",
)
"""Paths that make programs run. A pattern for a folder above them does not make them mutable, only one that names the
path itself."""

_MADE_BY_SYSTEM = ("var/cache/salt/minion/extmods", "var/lib/systemd/linger")
"""Guarded folders that the system itself makes, empty: only their content is drift."""

_OF_CONTAINERS = (
    *("var/lib/containerd", "var/lib/containers", "var/lib/docker", "var/lib/kubelet", "var/lib/lxc"),
    "var/lib/machines",
)
"""Folders with whole systems in them, whose programs are not run as this one's."""

_MAX_LINKS = 40
"""As the kernel has it: path_resolution(7)."""

Read = Literal["all", "rights", "nothing"]


class Mutable:
    """The paths that may differ: patterns of absolute paths, each with all that is below it.

    ``*`` and ``?`` stop at a slash, ``**`` does not. The methods take paths as in manifests: ``var/log/syslog``.
    """

    def __init__(self, declared: Iterable[str], defaults: Iterable[str] = DEFAULTS) -> None:
        plain = sorted({pattern.strip("/") for pattern in declared if pattern.strip("/")})
        self._guarded = [path.strip("/") for path in GUARDED]
        named = [pattern for pattern in plain if any(_covers(path, pattern) for path in self._guarded)]
        self._is_guarded = _any(self._guarded)
        self._named = _any(named)
        self._declared = _any([pattern for pattern in plain if pattern not in named])
        self._default = _any([path.strip("/") for path in defaults])

    def may_differ(self, path: str) -> bool:
        """Tell whether a path may differ."""
        if self._is_guarded(path):
            return path in _MADE_BY_SYSTEM or self._named(path)
        return self._default(path) or self._declared(path)

    def to_read(self, folder: str) -> Read:
        """Tell what has to be read below a folder.

        ``rights``: only which files are devices, or give who runs them more rights; they are drift everywhere. The
        folders of DEFAULTS are read whole.
        """
        declared = self._named(folder) or (self._declared(folder) and not self._is_guarded(folder))
        if any(path.startswith(f"{folder}/") for path in self._guarded):
            return "all"
        if folder in _KERNEL or (declared and folder in _OF_CONTAINERS):
            return "nothing"
        return "rights" if declared else "all"


def real_path(path: str, link: Callable[[str], str | None]) -> str:
    """Return an absolute path without links, as in manifests; '' for the root, and for links that lead to themselves.

    ``link``: the target of a link, None of what is none.
    """
    left, found, followed = path.split("/")[::-1], list[str](), 0
    while left and followed < _MAX_LINKS:
        part = left.pop()
        target = link("/".join([*found, part])) if part not in ("", ".", "..") else None
        if target is not None:
            found, followed = [] if target.startswith("/") else found, followed + 1
            left += target.split("/")[::-1]
        elif part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
    return "" if left else "/".join(found)


def _covers(above: str, path: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _any(patterns: list[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a path matches any of these patterns or is below one that does."""
    if not patterns:
        return lambda path: False
    joined = "|".join(map(expression, patterns))
    match = re.compile(f"(?:{joined})(?:/.*)?", re.DOTALL).fullmatch
    return lambda path: match(path) is not None
