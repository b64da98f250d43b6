"""HAProxy's runtime API: one command per connection. The commands: section 9.3 of HAProxy's management guide."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

from salt.exceptions import CommandExecutionError

TIMEOUT = 5.0
"""Seconds for one command: HAProxy answers within milliseconds, or it hangs."""
WORD = re.compile(r"[A-Za-z0-9._:/@%+,=\[\]-]+")
"""A word of a command: nothing that ends it (newline, ``;``), no quotes, nothing that starts a payload (``<<``)."""
_REFUSAL = re.compile(r"\[[0-3]\]: |(\[\d\]: )?Unknown command")
"""Each message begins with its syslog severity; 3 is an error. For an unknown command the severity is lower."""
_NO_BACKEND = "write that backend into haproxy.cfg, or correct backend in the pillar"
_TOO_OLD = "adding and deleting servers needs HAProxy 2.6 or newer"
_ADVICE = {
    "No such backend": _NO_BACKEND,
    "Can't find backend": _NO_BACKEND,
    "No such proxy": _NO_BACKEND,
    "Permission denied": "write `level admin` behind that `stats socket` in haproxy.cfg",
    "dynamic load balancing": "write `balance roundrobin` or `leastconn`, or `hash-type consistent`, in that backend",
    "Unknown command": _TOO_OLD,
    "experimental": _TOO_OLD,
    "unknown keyword": "correct options in the pillar",
}
"""Part of an error of HAProxy to what to do. It is only added to messages; nothing is decided by it."""


class Runtime:
    """One HAProxy, by the socket of its runtime API: a path, or ``host:port``."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    def command(self, *words: str) -> str:
        """Send one command and return the answer.

        Raises ``CommandExecutionError`` if HAProxy refuses it, or does not answer within TIMEOUT.
        """
        for word in words:
            if not WORD.fullmatch(word):
                raise CommandExecutionError(f"{word!r} cannot be part of a command to HAProxy")
        answer = self._answer(f"set severity-output number; {' '.join(words)}\n").strip()
        if _REFUSAL.match(answer):
            raise CommandExecutionError(f"HAProxy at {self.socket} refuses `{' '.join(words)}`: {_reason(answer)}")
        return answer

    def _answer(self, line: str) -> str:
        until = time.monotonic() + TIMEOUT
        try:
            with self._connected() as connection:
                connection.sendall(line.encode("ascii"))
                return b"".join(_chunks(connection, until)).decode(errors="replace")
        except TimeoutError as err:
            raise CommandExecutionError(
                f"HAProxy at {self.socket} did not answer within {TIMEOUT:g} s; check `systemctl status haproxy` there"
            ) from err
        except PermissionError as err:
            raise CommandExecutionError(
                f"HAProxy's socket {self.socket} is closed to the master's user; "
                "write `mode 660 group ...` with a group of that user behind its `stats socket` in haproxy.cfg"
            ) from err
        except OSError as err:
            raise CommandExecutionError(f"no HAProxy answers at {self.socket}: {err}; is it running?") from err

    def _connected(self) -> socket.socket:
        if not self.socket.startswith("/"):
            host, _, port = self.socket.rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(TIMEOUT)
            connection.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection


def _chunks(connection: socket.socket, until: float) -> Iterator[bytes]:
    """Yield the answer until HAProxy closes the connection; raise ``TimeoutError`` at ``until`` (monotonic seconds)."""
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        if not (chunk := connection.recv(1 << 16)):
            return
        yield chunk


def _reason(answer: str) -> str:
    """Return the first line of a refusal and, if it is known, what to do."""
    error = re.sub(r"^\[\d\]: ", "", answer.partition("\n")[0]).rstrip(".")
    advice = next((advice for part, advice in _ADVICE.items() if part in error), None)
    return f"{error}; {advice}" if advice else error
