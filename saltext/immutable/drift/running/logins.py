"""Interactive logins since the machine was made."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.running.processes import Process

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


def scan(root: str, since: float) -> list[Login]:
    """Return the logins that utmp and wtmp record after ``since`` (seconds of the epoch), and the open sessions."""
    base = root.rstrip("/")
    found = [login for name in ("run/utmp", "var/log/wtmp") for login in _records(f"{base}/{name}", since)]
    return [*found, *_sessions(f"{base}/run/systemd/sessions")]


def _records(path: str, since: float) -> Iterator[Login]:
    text = b""
    with suppress(OSError), open(path, "rb") as file:
        text = file.read()
    for record in _RECORD.iter_unpack(text[: len(text) // _RECORD.size * _RECORD.size]):
        kind, _, line, _, user, host, _, _, _, at, *_ = record
        if kind == _USER_PROCESS and at >= since:
            yield Login(_word(user), _word(line), f"logged in from {_word(host) or 'the console'}")


def _word(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="replace")


def _sessions(folder: str) -> Iterator[Login]:
    """Read the session files of logind; they include sessions without a terminal (ssh with a command)."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if not name.endswith(".ref"):
                yield from _session(f"{folder}/{name}")


def _session(path: str) -> Iterator[Login]:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        session = dict(line.strip().partition("=")[::2] for line in file)
        if session.get("CLASS") == "user":
            how = f"has a session by {session.get('SERVICE', '?')}"
            yield Login(session.get("USER", "?"), session.get("TTY", "no terminal"), how)


def drift(logins: Iterable[Login], processes: Iterable[Process], of_units: Collection[int]) -> Iterator[Item]:
    """Yield each user at each terminal once; ``of_units``: ids of the processes of units of the image."""
    listed: set[str] = set()
    for user, terminal, how in (*logins, *_at_terminals(processes, of_units)):
        what = f"{user} on {terminal}"
        if what not in listed:
            listed.add(what)
            yield Item("login", what, how)


def _at_terminals(processes: Iterable[Process], of_units: Collection[int]) -> Iterator[Login]:
    """Yield the users of programs at terminals: a shell that no login recorded (nsenter) is among them."""
    for process in processes:
        name = os.path.basename(process.exe)
        expected = process.pid in of_units and name not in _SHELLS
        if process.tty and name not in _WAITING and not expected:
            yield Login(process.user, _terminal(process.tty), f"runs {process.exe} (pid {process.pid})")


def _terminal(number: int) -> str:
    """Return the name of a terminal by its device number. See proc(5): bits 31 to 20 and 7 to 0 are the minor."""
    major, minor = number >> 8 & 0xFFF, (number >> 12 & 0xFFF00) | (number & 0xFF)
    if major in _PSEUDO:
        return f"pts/{(major - _PSEUDO.start) * 256 + minor}"
    return f"tty{minor}" if major == 4 else f"terminal {major}:{minor}"
