"""Who was logged in: interactively, since this machine began."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.processes import Process

_RECORD = struct.Struct("=hxxi32s4s32s256shhiii4i20x")
"""utmp(5), the same on all Linux."""
_USER_PROCESS = 7
_WAITING = ("agetty", "getty", "login", "sulogin")
_SHELLS = ("bash", "dash", "fish", "ksh", "sh", "zsh")
_PSEUDO = range(136, 144)
"""Majors of pseudo terminals."""


class Login(NamedTuple):
    """Somebody at a terminal."""

    user: str
    terminal: str
    how: str


def look(root: str, since: float) -> list[Login]:
    """Return the logins that the machine wrote down after ``since``, and the sessions that are open."""
    base = root.rstrip("/")
    found = [login for name in ("run/utmp", "var/log/wtmp") for login in _records(f"{base}/{name}", since)]
    return [*found, *_sessions(f"{base}/run/systemd/sessions")]


def _records(place: str, since: float) -> Iterator[Login]:
    text = b""
    with suppress(OSError), open(place, "rb") as file:
        text = file.read()
    for record in _RECORD.iter_unpack(text[: len(text) // _RECORD.size * _RECORD.size]):
        kind, _, line, _, user, host, _, _, _, at, *_ = record
        if kind == _USER_PROCESS and at >= since:
            yield Login(_word(user), _word(line), f"logged in from {_word(host) or 'the console'}")


def _word(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="replace")


def _sessions(folder: str) -> Iterator[Login]:
    """See logind's own files; a session without a terminal (ssh with a command) is one too."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if not name.endswith(".ref"):
                yield from _session(f"{folder}/{name}")


def _session(place: str) -> Iterator[Login]:
    with suppress(OSError), open(place, encoding="utf-8", errors="replace") as file:
        said = dict(line.strip().partition("=")[::2] for line in file)
        if said.get("CLASS") == "user":
            how = f"has a session by {said.get('SERVICE', '?')}"
            yield Login(said.get("USER", "?"), said.get("TTY", "no terminal"), how)


def drift(logins: Iterable[Login], processes: Iterable[Process], of_units: Collection[int]) -> Iterator[Item]:
    """Yield each login once; ``of_units``: the processes that are of units of the image."""
    told: set[str] = set()
    for user, terminal, how in (*logins, *_at_terminals(processes, of_units)):
        what = f"{user} on {terminal}"
        if what not in told:
            told.add(what)
            yield Item("login", what, how)


def _at_terminals(processes: Iterable[Process], of_units: Collection[int]) -> Iterator[Login]:
    """Whoever came past every login is at a terminal while he is here."""
    for process in processes:
        name = os.path.basename(process.exe)
        expected = process.pid in of_units and name not in _SHELLS
        if process.tty and name not in _WAITING and not expected:
            yield Login(process.user, _terminal(process.tty), f"runs {process.exe} (pid {process.pid})")


def _terminal(number: int) -> str:
    """See proc(5): the minor's bits are 31 to 20 and 7 to 0."""
    major, minor = number >> 8 & 0xFFF, (number >> 12 & 0xFFF00) | (number & 0xFF)
    if major in _PSEUDO:
        return f"pts/{(major - _PSEUDO.start) * 256 + minor}"
    return f"tty{minor}" if major == 4 else f"terminal {major}:{minor}"
