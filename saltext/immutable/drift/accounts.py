"""Users, groups and Debian packages: compare their files with the copies in the image. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from saltext.immutable.drift.item import Item

_T = TypeVar("_T")
PASSWD, SHADOW, GROUP, STATUS = "etc/passwd", "etc/shadow", "etc/group", "var/lib/dpkg/status"
_FIELDS = {
    PASSWD: ("password", "uid", "gid", "name", "home", "shell"),
    SHADOW: ("password", "last change", "least days", "most days", "warning", "inactive", "expiry", "reserved"),
    GROUP: ("password", "gid", "members"),
}
_SECRET = ("password",)
"""A difference is reported, the value never."""


def users(path: str, before: bytes, now: bytes) -> Iterator[Item]:
    """Yield each line of passwd, shadow or group that was added, changed or removed."""
    kind = "group" if path == GROUP else "user"
    for name, old, new in _differences(_lines(before), _lines(now)):
        if old is None or new is None:
            yield Item(kind, name, f"{'added' if old is None else 'removed'} (/{path})")
        else:
            yield Item(kind, name, f"changed: {_changed_fields(_FIELDS[path], old, new)} (/{path})")


def _lines(text: bytes) -> dict[str, list[str]]:
    """Return name to its other fields; of a name that is there twice, the fields of both lines."""
    found: dict[str, list[str]] = {}
    for line in text.decode(errors="replace").splitlines():
        name, *fields = line.split(":")
        found.setdefault(name, []).extend(fields)
    return found


def _changed_fields(fields: tuple[str, ...], old: list[str], new: list[str]) -> str:
    if len(old) != len(new):
        return "another number of fields"
    pairs = zip(fields, old, new, strict=False)
    return ", ".join(_field(field, one, other) for field, one, other in pairs if one != other) or "fields"


def _field(field: str, old: str, new: str) -> str:
    return field if field in _SECRET else f"{field} {new or 'none'}, was {old or 'none'}"


def packages(before: bytes, now: bytes) -> Iterator[Item]:
    """Yield each Debian package that was installed, removed or has another version."""
    for name, old, new in _differences(_installed(before), _installed(now)):
        if old is None or new is None:
            yield Item("package", name, f"added: {new}" if old is None else f"removed: was {old}")
        else:
            yield Item("package", name, f"changed: {new}, was {old}")


def _installed(status: bytes) -> dict[str, str]:
    found = {}
    for stanza in status.decode(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Architecture|Version): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[f"{fields.get('Package')}:{fields.get('Architecture')}"] = fields.get("Version", "")
    return found


def _differences(before: Mapping[str, _T], now: Mapping[str, _T]) -> Iterator[tuple[str, _T | None, _T | None]]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


COMPARE: Mapping[str, Callable[[bytes, bytes], Iterator[Item]]] = {
    STATUS: packages,
    **{path: partial(users, path) for path in (PASSWD, SHADOW, GROUP)},
}
"""Path to the function that compares the file's content, before and now."""
