"""HAProxy sends the visitors: machines are servers that come and go through its runtime API, without a reload."""

from __future__ import annotations

import csv
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.spec import reading
from saltext.immutable.traffic import Standing
from saltext.immutable.traffic.runtime import WORD, Runtime

State = Literal["in", "draining", "out"]
GONE_WITHIN = 2.0
"""Seconds for visitors that are sent away to let go of a server, which cannot be deleted before."""
_LEAST: tuple[State, ...] = ("out", "draining", "in")
_LONGEST_PATH = 107
_NAME = re.compile(r"[A-Za-z0-9._:-]+")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_OURS = {"check": "write check: true beside options", "agent-check": "an agent would open and close machines by itself"}
_OURS |= {word: "attach and drain say that" for word in ("enabled", "disabled", "id")}
_DRAIN, _MAINTENANCE = 0x08 | 0x10, 0x01 | 0x02 | 0x04 | 0x20
"""Bits of ``srv_admin_state``, forced and inherited."""
_NO_VERDICT = ("", "INI", "UNK")


class Orders(Protocol):
    """One HAProxy that can be given commands."""

    place: str

    def order(self, *words: str) -> str:
        """Give one command and return its answer, or raise ``CommandExecutionError``."""


@dataclass(frozen=True)
class Settings:
    """What the pillar says below ``traffic: {haproxy: ...}``."""

    sockets: tuple[str, ...]
    backend: str
    port: int = 80
    check: bool = True
    prefix: str = "immutable"
    """Ours are the servers whose names begin with it and a colon."""
    options: tuple[str, ...] = ()
    """Further words of a ``server`` line: ``maxconn 100``."""


class HAProxy:
    """``traffic: {haproxy: {socket: /run/haproxy/admin.sock, backend: web}}``; each of several sockets is a HAProxy."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        opts: Mapping[str, Any],
        runtime: Callable[[str], Orders] = Runtime,
    ) -> None:
        found = read(settings)
        self._backends = [Backend(runtime(place), found) for place in found.sockets]

    def standing(self) -> Mapping[str, Standing]:
        """Return our machines; where several HAProxies differ, the least that one of them says."""
        seen = [backend.standing() for backend in self._backends]
        out = Standing("out")
        return {
            minion_id: _together([each.get(minion_id, out) for each in seen])
            for minion_id in sorted({minion_id for each in seen for minion_id in each})
        }

    def attach(self, minion_id: str, address: str) -> None:
        """Let a machine have visitors of every HAProxy."""
        self._everywhere(lambda backend: backend.attach(minion_id, address))

    def drain(self, minion_id: str) -> None:
        """Send it no new visitors."""
        self._everywhere(lambda backend: backend.drain(minion_id))

    def remove(self, minion_id: str) -> None:
        """Forget a machine; visitors that it still has are cut off."""
        self._everywhere(lambda backend: backend.remove(minion_id))

    def _everywhere(self, act: Callable[[Backend], None]) -> None:
        """Act on every HAProxy, also behind one that fails; then tell of all that did."""
        errors: list[CommandExecutionError] = []
        for backend in self._backends:
            try:
                act(backend)
            except CommandExecutionError as err:
                errors.append(err)
        if errors:
            raise CommandExecutionError("; ".join(map(str, errors))) from errors[0]


class Backend:
    """The backend of one HAProxy. What is there is looked up before and after, so that every call may be repeated."""

    def __init__(self, runtime: Orders, settings: Settings) -> None:
        self._order = runtime.order
        self._place = runtime.place
        self._settings = settings

    def standing(self) -> dict[str, Standing]:
        """Return our machines in this HAProxy."""
        states = self._servers()
        figures = self._figures()
        return {
            name.partition(":")[2]: _standing(state, figures.get(name, {}))
            for name, state in states.items()
            if name.startswith(f"{self._settings.prefix}:")
        }

    def attach(self, minion_id: str, address: str) -> None:
        """Add the server, or take the one that is there, and open it."""
        server = self._server(minion_id)
        host = _host(address)
        if self._absent(minion_id):
            self._add(minion_id, f"{host}:{self._settings.port}")
        self._order("set", "server", server, "addr", host.strip("[]"), "port", str(self._settings.port))
        if self._settings.check:
            self._order("enable", "health", server)
        self._order("set", "server", server, "state", "ready")

    def drain(self, minion_id: str) -> None:
        """Close the server to new visitors."""
        self._unless_absent(minion_id, "set", "server", self._server(minion_id), "state", "drain")

    def remove(self, minion_id: str) -> None:
        """Delete the server; visitors that keep it from going are cut off."""
        server = self._server(minion_id)
        self._unless_absent(minion_id, "set", "server", server, "state", "maint")
        until = time.monotonic() + GONE_WITHIN
        while not self._deleted(minion_id, last=time.monotonic() >= until):
            self._unless_absent(minion_id, "shutdown", "sessions", "server", server)
            time.sleep(0.05)

    def _deleted(self, minion_id: str, last: bool) -> bool:
        """Try to delete; a refusal counts only when it is the last try."""
        try:
            self._unless_absent(minion_id, "del", "server", self._server(minion_id))
        except CommandExecutionError:
            if last:
                raise
            return False
        return True

    def _add(self, minion_id: str, where: str) -> None:
        """Add the server, closed; somebody may have been quicker."""
        words = [where, *(["check"] if self._settings.check else []), *self._settings.options]
        try:
            self._order("add", "server", self._server(minion_id), *words)
        except CommandExecutionError:
            if self._absent(minion_id):
                raise

    def _unless_absent(self, minion_id: str, *words: str) -> None:
        """Give a command about a server; one that is not there needs none."""
        if self._absent(minion_id):
            return
        try:
            self._order(*words)
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
        """Return the state of each server of the backend, ours and others, by its name."""
        said = self._order("show", "servers", "state", self._settings.backend)
        lines = said.splitlines()
        titles = next((line[2:].split() for line in lines if line.startswith("# be_id ")), None)
        if titles is None or lines[0].strip() != "1":
            raise CommandExecutionError(f"HAProxy at {self._place} lists its servers in a form that is unknown here")
        rows = [line.split() for line in lines[1:] if line and line[0] != "#"]
        if any(len(row) < len(titles) for row in rows):
            raise self._torn()
        return {row["srv_name"]: row for row in (dict(zip(titles, row, strict=False)) for row in rows)}

    def _figures(self) -> dict[str, Mapping[str, str]]:
        """Return the counters of each server, by its name."""
        said = self._order("show", "stat", self._settings.backend, "4", "-1")
        rows = list(csv.DictReader(said.removeprefix("# ").splitlines()))
        if any(None in row.values() or "svname" not in row for row in rows):
            raise self._torn()
        return {row["svname"]: row for row in rows}

    def _torn(self) -> CommandExecutionError:
        return CommandExecutionError(f"HAProxy at {self._place} broke off in the middle of its answer")


def _standing(state: Mapping[str, str], figures: Mapping[str, str]) -> Standing:
    admin = int(state["srv_admin_state"])
    stands: State = "out" if admin & _MAINTENANCE else "draining" if admin & _DRAIN else "in"
    judged = figures.get("check_status", "").removeprefix("* ") not in _NO_VERDICT
    return Standing(
        state=stands,
        up=int(state["srv_op_state"]) != 0 if judged and stands != "out" else None,
        sessions=int(figures.get("scur") or 0) + int(figures.get("qcur") or 0),
    )


def _together(seen: list[Standing]) -> Standing:
    """Return what holds for all: the least state; up only if all are."""
    ups = [each.up for each in seen]
    return Standing(
        state=min((each.state for each in seen), key=_LEAST.index),
        up=False if False in ups else None if None in ups else True,
        sessions=sum(each.sessions for each in seen),
    )


def _host(address: str) -> str:
    """Return an address as HAProxy wants it before a port; names are not looked up by it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError as err:
        raise CommandExecutionError(f"HAProxy needs an address, and {address!r} is none") from err
    return f"[{found}]" if found.version == 6 else str(found)


def read(settings: Mapping[str, Any]) -> Settings:
    """Check what the pillar says, or raise ``SaltInvocationError`` with all that is wrong."""
    problems: list[str] = []
    section = reading.Section("traffic:haproxy", settings, problems)
    found = Settings(
        sockets=section.need("socket", _sockets, "/run/haproxy/admin.sock"),
        backend=section.need("backend", _name, "web"),
        port=section.take("port", _port, Settings.port),
        check=section.take("check", reading.flag, Settings.check),
        prefix=section.take("prefix", _prefix, Settings.prefix),
        options=section.take("options", _options, Settings.options),
    )
    section.close()
    if problems:
        raise SaltInvocationError("\n".join(problems))
    return found


def _sockets(value: object) -> tuple[str, ...]:
    found = tuple(_socket(one) for one in (value if isinstance(value, list | tuple) else [value]))
    if not found:
        raise ValueError("must name a socket; write /run/haproxy/admin.sock")
    if len(set(found)) < len(found):
        raise ValueError("names a socket twice")
    return found


def _socket(value: object) -> str:
    found = reading.text(value)
    match = _PLACE.fullmatch(found)
    if match and 0 < int(match[2]) < 65536:
        return found
    if not found.startswith("/") or "\0" in found:
        raise ValueError(f"{found!r} is no socket; write an absolute path, or host:port")
    if len(found.encode()) > _LONGEST_PATH:
        raise ValueError(f"{found!r} is longer than the {_LONGEST_PATH} bytes that a socket's path may have")
    return found


def _name(value: object) -> str:
    found = reading.text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{found!r} is not a name of HAProxy's; use letters, digits, '.', ':', '-' and '_'")
    return found


def _prefix(value: object) -> str:
    found = _name(value)
    if ":" in found:
        raise ValueError(f"{found!r} must have no ':', which parts it from the minion id")
    return found


def _port(value: object) -> int:
    found = reading.count(value)
    if not 0 < found < 65536:
        raise ValueError(f"must be 1 to 65535, not {found}")
    return found


def _options(value: object) -> tuple[str, ...]:
    """Read ``{maxconn: 100, send-proxy: true}`` as the words of a server line."""
    found: list[str] = []
    for word, argument in reading.mapping(value).items():
        if word in _OURS:
            raise ValueError(f"{word} has no place here: {_OURS[word]}")
        if argument is False or argument is None:
            raise ValueError(f"{word} must have a value, or true where HAProxy wants none")
        found += [word] if argument is True else [word, str(argument)]
    if wrong := [word for word in found if not WORD.fullmatch(word)]:
        raise ValueError(f"{wrong[0]!r} is no word that may stand in a server line")
    return tuple(found)
