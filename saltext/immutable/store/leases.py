"""Leases: the right of one process to act on something, kept in the database. Times are seconds since the epoch."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.host import this_boot
from saltext.immutable.store.database import Database
from saltext.immutable.store.schema import leases

_MINE = sa.update(leases).where(leases.c.name == sa.bindparam("mine"), leases.c.epoch == sa.bindparam("my_epoch"))


class Held(CommandExecutionError):  # type: ignore[misc]
    """Another process holds the lease."""


class Fenced(CommandExecutionError):  # type: ignore[misc]
    """The lease was lost: another process took it after this one did not renew it in time."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    boot: str
    """Boot id and pid namespace: within one of them, a pid and its start time name one process."""
    pid: int
    started: str
    """In clock ticks since the boot, as /proc says it."""
    since: float
    machine: str = ""
    """/etc/machine-id; '' where there is none. With the host's name it names a host also after a reboot."""
    user: str | None = None
    jid: str | None = None

    @classmethod
    def this(cls, since: float, user: str | None = None, jid: str | None = None) -> Holder:
        """Return the process that asks."""
        space = f"{this_boot()} {os.readlink('/proc/self/ns/pid')}"
        started = _started(os.getpid()) or ""
        return cls(socket.gethostname(), space, os.getpid(), started, since, _machine_id(), user, jid)

    def dead_here(self, here: Holder) -> bool:
        """Tell whether it ran in the kernel of ``here`` and runs no more."""
        if (self.host, self.machine) != (here.host, here.machine):
            return False
        kernel, _, space = self.boot.partition(" ")
        here_kernel, _, here_space = here.boot.partition(" ")
        if kernel != here_kernel:
            return bool(self.machine)  # this host was booted since
        return space == here_space and _started(self.pid) != self.started

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, timezone.utc).isoformat(sep=" ", timespec="seconds")
        known = "".join(f", {k} {v}" for k, v in (("user", self.user), ("jid", self.jid)) if v)
        return f"pid {self.pid} on {self.host} since {since}{known}"


class Lease:
    """The right to act on something, kept by a ``beat`` or ``write`` at least every ``ttl`` seconds."""

    def __init__(self, database: Database, name: str, epoch: int, ttl: float) -> None:
        self.name = name
        self.epoch = epoch
        self.ttl = ttl
        self._database = database

    def beat(self) -> None:
        """Keep the lease for another ``ttl`` seconds."""
        with self.write():
            pass

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits only while this process has the lease; it renews the lease."""
        with self._database.write() as tx:
            until = self._database.clock() + self.ttl
            if not tx.execute(_MINE, {**self._me, "until": until}).rowcount:
                raise Fenced(f"the lease {self.name!r} was taken over: this process may do no more")
            yield tx

    def release(self) -> None:
        """Give the lease back; one that was lost already stays with its new holder."""
        with self._database.write() as tx:
            tx.execute(_MINE, {**self._me, "holder": None, "until": 0.0})

    @property
    def _me(self) -> dict[str, Any]:
        return {"mine": self.name, "my_epoch": self.epoch}


def acquire(database: Database, name: str, ttl: float, me: Holder) -> Lease:
    """Take a lease for ``ttl`` seconds; raise ``Held`` where another process has it."""
    database.insert_absent(leases, {"name": name, "epoch": 0, "holder": None, "until": 0.0})
    where = sa.select(leases.c.epoch).where(leases.c.name == name)
    with database.read() as connection:
        epoch = connection.execute(where).scalar_one()
    # Read after the epoch: whoever comes between changes the epoch, and the update below misses.
    holder = holder_of(database, name)
    values = {"epoch": epoch + 1, "holder": asdict(me), "until": database.clock() + ttl}
    if holder is None:
        with database.write() as tx:
            where_free = (leases.c.name == name, leases.c.epoch == epoch)
            if tx.execute(sa.update(leases).where(*where_free).values(values)).rowcount:
                return Lease(database, name, epoch + 1, ttl)
    raise Held(f"{name} is held by {holder or holder_of(database, name) or 'another process'}")


def holder_of(database: Database, name: str) -> Holder | None:
    """Return the process that holds a lease now; None if none does, or if it died here."""
    with database.read() as connection:
        row = connection.execute(sa.select(leases).where(leases.c.name == name)).first()
    holder = Holder(**row.holder) if row and row.holder else None
    if row is None or holder is None or row.until <= database.clock():
        return None
    return None if holder.dead_here(Holder.this(database.clock())) else holder


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except FileNotFoundError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a process, None if there is no such process (proc(5), field 22)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]
