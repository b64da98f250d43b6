"""HAProxy's runtime API: one command a connection. Its words: section 9.3 of HAProxy's management guide."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

from salt.exceptions import CommandExecutionError

WITHIN = 5.0
"""Seconds for one command: HAProxy answers within milliseconds, or it hangs."""
WORD = re.compile(r"[A-Za-z0-9._:/@%+,=\[\]-]+")
"""What may stand in a command: nothing that ends it (newline, ``;``), quotes, or begins what follows it (``<<``)."""
_REFUSAL = re.compile(r"\[[0-3]\]: |(\[\d\]: )?Unknown command")
"""Each message begins with its syslog severity; 3 is an error. A command that it does not know is none to HAProxy."""
_NO_BACKEND = "write that backend into haproxy.cfg, or mend backend in the pillar"
_TOO_OLD = "machines come and go with HAProxy 2.6 or newer"
_MENDS = {
    "No such backend": _NO_BACKEND,
    "Can't find backend": _NO_BACKEND,
    "No such proxy": _NO_BACKEND,
    "Permission denied": "write `level admin` behind that `stats socket` in haproxy.cfg",
    "dynamic load balancing": "write `balance roundrobin` or `leastconn`, or `hash-type consistent`, in that backend",
    "Unknown command": _TOO_OLD,
    "experimental": _TOO_OLD,
    "unknown keyword": "mend options in the pillar",
}
"""What HAProxy says, and how to mend it. Advice only: nothing is decided by it."""


class Runtime:
    """One HAProxy, by the socket of its runtime API: a path, or ``host:port``."""

    def __init__(self, place: str) -> None:
        self.place = place

    def order(self, *words: str) -> str:
        """Give one command and return its answer; ``CommandExecutionError`` where it is refused, or nobody answers."""
        for word in words:
            if not WORD.fullmatch(word):
                raise CommandExecutionError(f"{word!r} cannot be part of a command to HAProxy")
        answer = self._said(f"set severity-output number; {' '.join(words)}\n").strip()
        if _REFUSAL.match(answer):
            raise CommandExecutionError(f"HAProxy at {self.place} refuses `{' '.join(words)}`: {_reason(answer)}")
        return answer

    def _said(self, line: str) -> str:
        until = time.monotonic() + WITHIN
        try:
            with self._connected() as door:
                door.sendall(line.encode("ascii"))
                return b"".join(_chunks(door, until)).decode(errors="replace")
        except TimeoutError as err:
            raise CommandExecutionError(f"HAProxy at {self.place} did not answer within {WITHIN:g} s") from err
        except PermissionError as err:
            raise CommandExecutionError(
                f"HAProxy's socket {self.place} is closed to the master's user; "
                "write `mode 660 group ...` with a group of that user behind its `stats socket` in haproxy.cfg"
            ) from err
        except OSError as err:
            raise CommandExecutionError(f"no HAProxy answers at {self.place}: {err}; is it running?") from err

    def _connected(self) -> socket.socket:
        if not self.place.startswith("/"):
            host, _, port = self.place.rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), WITHIN)
        door = socket.socket(socket.AF_UNIX)
        try:
            door.settimeout(WITHIN)
            door.connect(self.place)
        except OSError:
            door.close()
            raise
        return door


def _chunks(door: socket.socket, until: float) -> Iterator[bytes]:
    """Yield what is said until HAProxy closes; one that goes on and on is as late as one that says nothing."""
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        door.settimeout(left)
        if not (chunk := door.recv(1 << 16)):
            return
        yield chunk


def _reason(answer: str) -> str:
    """Return the first line of a refusal, and how to mend it where that is known."""
    said = re.sub(r"^\[\d\]: ", "", answer.partition("\n")[0]).rstrip(".")
    mend = next((mend for part, mend in _MENDS.items() if part in said), None)
    return f"{said}; {mend}" if mend else said
