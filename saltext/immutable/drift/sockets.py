"""Who listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import psutil

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.processes import Process

_USERS = "user@"
"""Units of the image in which everybody runs units of his own."""
_RUNNERS = {"atd.service": (), "cron.service": (), "salt-minion.service": ("salt-minion",)}
"""Units whose work it is to run other programs, and the scripts that are their own."""


class Listener(NamedTuple):
    """A socket that waits for others."""

    pid: int
    address: str
    """``tcp 0.0.0.0:80``"""


def look() -> list[Listener]:
    """Return the sockets of this machine's network on which somebody can begin to talk; ``OSError``: nobody can see."""
    found = []
    for each in _connections():
        if each.pid and each.laddr and (each.status == psutil.CONN_LISTEN or _is_open_udp(each)):
            kind = "tcp" if each.type == socket.SOCK_STREAM else "udp"
            found.append(Listener(each.pid, f"{kind} {each.laddr.ip}:{each.laddr.port}"))
    return found


def _connections() -> list[Any]:
    try:
        return list(psutil.net_connections("inet"))
    except (psutil.Error, RuntimeError) as err:
        raise OSError(str(err)) from err


def _is_open_udp(each: Any) -> bool:
    return each.type == socket.SOCK_DGRAM and not each.raddr


def told_to_run(processes: Iterable[Process]) -> Iterator[int]:
    """Yield the processes that are of a unit only because it runs what it is told to."""
    for process in processes:
        own = _RUNNERS.get(process.unit)
        if process.unit.startswith(_USERS) or (own is not None and os.path.basename(process.script) not in own):
            yield process.pid


def drift(listeners: Iterable[Listener], processes: Iterable[Process], ours: Collection[int]) -> Iterator[Item]:
    """Yield the sockets of all but ``ours``: the processes that are of a unit and an executable of the image."""
    by_pid = {process.pid: process for process in processes}
    for pid, address in sorted(set(listeners)):
        process = by_pid.get(pid)
        if process is not None and pid not in ours:
            where = process.unit or "no unit"
            yield Item("socket", address, f"{process.exe} of {where} listens (pid {pid}: {process.command})")
