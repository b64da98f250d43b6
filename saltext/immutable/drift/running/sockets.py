"""Listening sockets of programs that are not from the image."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import psutil

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.running.processes import Process

_USERS = "user@"
"""Units of the image in which users run units of their own."""
_RUNNERS = {"atd.service": (), "cron.service": (), "salt-minion.service": ("salt-minion",)}
"""Units that run other programs, and their own scripts."""


class Listener(NamedTuple):
    """A socket that accepts connections or datagrams."""

    pid: int
    address: str
    """``tcp 0.0.0.0:80``"""


def scan(proc: str = "/proc") -> list[Listener]:
    """Return the listening TCP and open UDP sockets of this machine; raise ``OSError`` if they cannot be read."""
    found = []
    for each in _connections(proc):
        if each.pid and each.laddr and (each.status == psutil.CONN_LISTEN or _is_open_udp(each)):
            kind = "tcp" if each.type == socket.SOCK_STREAM else "udp"
            found.append(Listener(each.pid, f"{kind} {each.laddr.ip}:{each.laddr.port}"))
    return found


def _connections(proc: str) -> list[Any]:
    before, psutil.PROCFS_PATH = psutil.PROCFS_PATH, proc
    try:
        return list(psutil.net_connections("inet"))
    except (psutil.Error, RuntimeError) as err:
        raise OSError(str(err)) from err
    finally:
        psutil.PROCFS_PATH = before


def _is_open_udp(each: Any) -> bool:
    return each.type == socket.SOCK_DGRAM and not each.raddr


def started_by_runners(processes: Iterable[Process]) -> Iterator[int]:
    """Yield the ids of processes that belong to a unit of the image only because it runs other programs."""
    for process in processes:
        own = _RUNNERS.get(process.unit)
        if process.unit.startswith(_USERS) or (own is not None and os.path.basename(process.script) not in own):
            yield process.pid


def drift(listeners: Iterable[Listener], processes: Iterable[Process], expected: Collection[int]) -> Iterator[Item]:
    """Yield the sockets of all processes except ``expected``: ids of those whose unit and program are the image's."""
    by_pid = {process.pid: process for process in processes}
    for pid, address in sorted(set(listeners)):
        process = by_pid.get(pid)
        if process is not None and pid not in expected:
            where = process.unit or "no unit"
            yield Item("socket", address, f"{process.exe} of {where} listens (pid {pid}: {process.command})")
