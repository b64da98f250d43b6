"""The traffic adapter ``haproxy``: machines are servers, added and deleted by the runtime API without a reload."""

from __future__ import annotations

import csv
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from salt.exceptions import CommandExecutionError

from saltext.immutable.spec import reading
from saltext.immutable.spec.section import Section, refuse
from saltext.immutable.text import quoted
from saltext.immutable.traffic import TrafficStatus
from saltext.immutable.traffic.adapter import State, combined
from saltext.immutable.traffic.haproxy_socket import WORD, Runtime

DELETE_WITHIN = 2.0
"""Seconds within which a server must lose its sessions, once they are shut down: before that it cannot be deleted."""
_PORT = reading.whole(1, 65535)
_NUMBER = reading.whole(0, (1 << 31) - 1)
"""The reader of a number in a server's options: connections, milliseconds or bytes."""
_MAX_SOCKET_PATH = 107
"""Bytes: the limit of Linux."""
_NAME = re.compile(r"[A-Za-z0-9._:-]+")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_RESERVED = {
    "check": "write check: true beside options",
    "agent-check": "an agent would change the state of servers",
}
_RESERVED |= {word: "the adapter sets it" for word in ("enabled", "disabled", "id")}
_DRAIN, _MAINTENANCE = 0x08 | 0x10, 0x01 | 0x02 | 0x04 | 0x20
"""Bits of ``srv_admin_state``, forced and inherited."""
_NO_RESULT = ("", "INI", "UNK")
"""Values of ``check_status`` before the first check has ended, or without a check."""


class Commands(Protocol):
    """One HAProxy that takes commands: `Runtime`, or a test's."""

    socket: str

    def command(self, *words: str) -> str:
        """Send one command and return the answer, or raise ``CommandExecutionError``."""


@dataclass(frozen=True)
class Settings:
    """The mapping below ``traffic: {haproxy: ...}`` in the pillar."""

    sockets: tuple[str, ...]
    backend: str
    port: int = 80
    check: bool = True
    prefix: str = "immutable"
    """The names of this fleet's servers begin with it and a colon."""
    options: tuple[str, ...] = ()
    """Further words of a ``server`` line: ``maxconn 100``."""


class HAProxy:
    """``traffic: {haproxy: {socket: /run/haproxy/admin.sock, backend: web}}``; a list of sockets: several HAProxies."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        opts: Mapping[str, Any],
        runtime: Callable[[str], Commands] = Runtime,
    ) -> None:
        found = read(settings)
        self._backends = [Backend(runtime(socket), found) for socket in found.sockets]

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raise ``SaltInvocationError`` if a setting is wrong."""
        read(settings)

    def status(self) -> Mapping[str, TrafficStatus]:
        """Return the machines of this fleet; if several HAProxies differ, the state with the least traffic."""
        seen = [backend.status() for backend in self._backends]
        out = TrafficStatus("out")
        return {
            minion_id: combined([each.get(minion_id, out) for each in seen])
            for minion_id in sorted({minion_id for each in seen for minion_id in each})
        }

    def attach(self, minion_id: str, address: str) -> None:
        """Let every HAProxy send new sessions to a machine."""
        self._everywhere(lambda backend: backend.attach(minion_id, address))

    def drain(self, minion_id: str) -> None:
        """Let every HAProxy send no new sessions to a machine."""
        self._everywhere(lambda backend: backend.drain(minion_id))

    def remove(self, minion_id: str) -> None:
        """Remove a machine from every HAProxy; its remaining sessions are shut down."""
        self._everywhere(lambda backend: backend.remove(minion_id))

    def _everywhere(self, act: Callable[[Backend], None]) -> None:
        """Act on every HAProxy, even if one fails; then raise the errors of all that failed."""
        errors: list[CommandExecutionError] = []
        for backend in self._backends:
            try:
                act(backend)
            except CommandExecutionError as err:
                errors.append(err)
        if errors:
            raise CommandExecutionError("; ".join(map(str, errors))) from errors[0]


class Backend:
    """The backend of one HAProxy. Each call reads the servers before and after, so that it may be repeated."""

    def __init__(self, runtime: Commands, settings: Settings) -> None:
        self._command = runtime.command
        self._socket = runtime.socket
        self._settings = settings

    def status(self) -> dict[str, TrafficStatus]:
        """Return the machines of this fleet in this HAProxy."""
        states = self._servers()
        stats = self._stats()
        return {
            name.partition(":")[2]: _status(state, stats.get(name, {}))
            for name, state in states.items()
            if name.startswith(f"{self._settings.prefix}:")
        }

    def attach(self, minion_id: str, address: str) -> None:
        """Add the server unless it is there, set its address, and make it ready."""
        server = self._server(minion_id)
        host = _host(address)
        if self._absent(minion_id):
            self._add(minion_id, f"{host}:{self._settings.port}")
        self._command("set", "server", server, "addr", host.strip("[]"), "port", str(self._settings.port))
        if self._settings.check:
            self._command("enable", "health", server)
        self._command("set", "server", server, "state", "ready")

    def drain(self, minion_id: str) -> None:
        """Set the server's state to ``drain``."""
        self._unless_absent(minion_id, "set", "server", self._server(minion_id), "state", "drain")

    def remove(self, minion_id: str) -> None:
        """Delete the server, after shutting down its remaining sessions."""
        server = self._server(minion_id)
        self._unless_absent(minion_id, "set", "server", server, "state", "maint")
        until = time.monotonic() + DELETE_WITHIN
        while not self._deleted(minion_id, last=time.monotonic() >= until):
            self._unless_absent(minion_id, "shutdown", "sessions", "server", server)
            time.sleep(0.05)

    def _deleted(self, minion_id: str, last: bool) -> bool:
        """Try to delete the server, and tell whether that worked; raise HAProxy's refusal only if ``last``."""
        try:
            self._unless_absent(minion_id, "del", "server", self._server(minion_id))
        except CommandExecutionError:
            if last:
                raise
            return False
        return True

    def _add(self, minion_id: str, address: str) -> None:
        """Add the server, in maintenance; another thread may have added it meanwhile."""
        words = [address, *(["check"] if self._settings.check else []), *self._settings.options]
        try:
            self._command("add", "server", self._server(minion_id), *words)
        except CommandExecutionError:
            if self._absent(minion_id):
                raise

    def _unless_absent(self, minion_id: str, *words: str) -> None:
        """Send a command about a server; if the server is missing, do nothing."""
        if self._absent(minion_id):
            return
        try:
            self._command(*words)
        except CommandExecutionError:
            if not self._absent(minion_id):
                raise

    def _server(self, minion_id: str) -> str:
        try:
            return f"{self._settings.backend}/{self._settings.prefix}:{reading.minion_id(minion_id)}"
        except ValueError as err:
            raise CommandExecutionError(f"HAProxy: {err}") from err

    def _absent(self, minion_id: str) -> bool:
        return f"{self._settings.prefix}:{minion_id}" not in self._servers()

    def _servers(self) -> dict[str, Mapping[str, str]]:
        """Return name to state of all servers of the backend, also of those that are not this fleet's."""
        lines = self._command("show", "servers", "state", self._settings.backend).splitlines()
        titles = next((line[2:].split() for line in lines if line.startswith("# be_id ")), None)
        if titles is None or lines[0].strip() != "1":
            raise CommandExecutionError(
                f"HAProxy at {self._socket} lists its servers in an unknown format; HAProxy 2.6 and newer are supported"
            )
        rows = [line.split() for line in lines[1:] if line and line[0] != "#"]
        if any(len(row) < len(titles) for row in rows):
            raise self._cut_off()
        return {row["srv_name"]: row for row in (dict(zip(titles, row, strict=False)) for row in rows)}

    def _stats(self) -> dict[str, Mapping[str, str]]:
        """Return name to statistics of all servers of the backend."""
        answer = self._command("show", "stat", self._settings.backend, "4", "-1")
        rows = list(csv.DictReader(answer.removeprefix("# ").splitlines()))
        if any(None in row.values() or "svname" not in row for row in rows):
            raise self._cut_off()
        return {row["svname"]: row for row in rows}

    def _cut_off(self) -> CommandExecutionError:
        return CommandExecutionError(f"the answer of HAProxy at {self._socket} is cut off")


def _status(server: Mapping[str, str], stats: Mapping[str, str]) -> TrafficStatus:
    admin = int(server["srv_admin_state"])
    state: State = "out" if admin & _MAINTENANCE else "draining" if admin & _DRAIN else "in"
    was_checked = stats.get("check_status", "").removeprefix("* ") not in _NO_RESULT
    return TrafficStatus(
        state=state,
        up=int(server["srv_op_state"]) != 0 if was_checked and state != "out" else None,
        sessions=int(stats.get("scur") or 0) + int(stats.get("qcur") or 0),
    )


def _host(address: str) -> str:
    """Return an IP address in the form for ``address:port``. (HAProxy's ``add server`` resolves no names.)"""
    try:
        found = ipaddress.ip_address(address)
    except ValueError as err:
        raise CommandExecutionError(f"HAProxy needs an IP address, but {quoted(address)} is not an address") from err
    return f"[{found}]" if found.version == 6 else str(found)


def read(settings: Mapping[str, Any]) -> Settings:
    """Return the checked settings, or raise ``SaltInvocationError`` with a line for each problem."""
    problems: list[str] = []
    section = Section("traffic:haproxy", settings, problems)
    found = Settings(
        sockets=section.need("socket", _sockets, "/run/haproxy/admin.sock"),
        backend=section.need("backend", _name, "web"),
        port=section.take("port", _PORT, Settings.port),
        check=section.take("check", reading.flag, Settings.check),
        prefix=section.take("prefix", _prefix, Settings.prefix),
        options=section.take("options", _options, Settings.options),
    )
    section.close()
    refuse("traffic:haproxy", problems)
    return found


def _sockets(value: object) -> tuple[str, ...]:
    found = tuple(_socket(one) for one in (value if isinstance(value, list | tuple) else [value]))
    if not found:
        raise ValueError("must name a socket; write /run/haproxy/admin.sock")
    if len(set(found)) < len(found):
        raise ValueError("names a socket twice; leave out one of them")
    return found


def _socket(value: object) -> str:
    found = reading.text(value)
    match = _HOST_AND_PORT.fullmatch(found)
    if match and 0 < int(match[2]) < 65536:
        return found
    if not found.startswith("/") or "\0" in found:
        raise ValueError(f"{quoted(found)} is not a socket; write an absolute path, or host:port")
    if len(found.encode()) > _MAX_SOCKET_PATH:
        raise ValueError(f"{quoted(found)} is longer than the {_MAX_SOCKET_PATH} bytes that a socket's path may have")
    return found


def _name(value: object) -> str:
    found = reading.text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{quoted(found)} is not a name in HAProxy; use letters, digits, '.', ':', '-' and '_'")
    return found


def _prefix(value: object) -> str:
    found = _name(value)
    if ":" in found:
        raise ValueError(f"{quoted(found)} must not hold ':', which separates it from the minion id")
    return found


def _options(value: object) -> tuple[str, ...]:
    """Read ``{maxconn: 100, send-proxy: true}`` as the words of a server line."""
    found: list[str] = []
    for word, argument in reading.mapping(value).items():
        if word in _RESERVED:
            raise ValueError(f"{word} is not allowed here: {_RESERVED[word]}")
        if argument is False or argument is None:
            raise ValueError(f"{word} must have a value, or true if it takes none in HAProxy")
        if argument is not True:
            reading.text(argument) if isinstance(argument, str) else _NUMBER(argument)
        found += [word] if argument is True else [word, str(argument)]
    if wrong := [word for word in found if not WORD.fullmatch(word)]:
        raise ValueError(f"{quoted(wrong[0])} cannot be a word of a server line; use letters, digits and ._:/@%+,=[]-")
    return tuple(found)
