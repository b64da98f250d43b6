"""Leases in the database: at most one process at a time works on a thing. Times are seconds since the epoch."""

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

_UPDATE_OWN = sa.update(leases).where(leases.c.name == sa.bindparam("own"), leases.c.epoch == sa.bindparam("own_epoch"))


class Held(CommandExecutionError):  # type: ignore[misc]
    """Another process holds the lease."""


class Fenced(CommandExecutionError):  # type: ignore[misc]
    """The lease was lost: this process did not renew it in time, and another one took it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    boot: str
    """Boot id and pid namespace: within them, pid and start time identify a process."""
    pid: int
    started: str
    """In clock ticks since the boot, from /proc."""
    since: float
    machine: str = ""
    """/etc/machine-id, or ''. With the name of the host it identifies a host across reboots."""
    user: str | None = None
    jid: str | None = None

    @classmethod
    def current(cls, since: float, user: str | None = None, jid: str | None = None) -> Holder:
        """Return this process as a holder."""
        space = f"{this_boot()} {os.readlink('/proc/self/ns/pid')}"
        started = _started(os.getpid()) or ""
        return cls(socket.gethostname(), space, os.getpid(), started, since, _machine_id(), user, jid)

    def is_dead(self, here: Holder) -> bool:
        """Tell whether it ran on the host of ``here`` (this process) and has certainly ended."""
        if (self.host, self.machine) != (here.host, here.machine):
            return False
        kernel, _, space = self.boot.partition(" ")
        here_kernel, _, here_space = here.boot.partition(" ")
        if kernel != here_kernel:
            return bool(self.machine)  # this host has rebooted since
        return space == here_space and _started(self.pid) != self.started

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, timezone.utc).isoformat(sep=" ", timespec="seconds")
        known = "".join(f", {k} {v}" for k, v in (("user", self.user), ("jid", self.jid)) if v)
        return f"pid {self.pid} on {self.host} since {since}{known}"


class Lease:
    """A lease that this process holds. It must call ``renew`` or ``write`` at least every ``ttl`` seconds."""

    def __init__(self, database: Database, name: str, epoch: int, ttl: float) -> None:
        self.name = name
        self.epoch = epoch
        self.ttl = ttl
        self._database = database

    def renew(self) -> None:
        """Keep the lease for another ``ttl`` seconds; raise ``Fenced`` if it is lost."""
        with self.write():
            pass

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits only if this process still has the lease; it renews the lease.

        Raises ``Fenced`` if the lease is lost.
        """
        with self._database.write() as tx:
            until = self._database.clock() + self.ttl
            if not tx.execute(_UPDATE_OWN, {**self._key, "until": until}).rowcount:
                raise Fenced(
                    f"another process took over the lease {self.name!r}, so this one must stop; give the command "
                    "again when the other one has ended: nothing is lost"
                )
            yield tx

    def release(self) -> None:
        """Release the lease; one that was lost stays with its new holder."""
        with self._database.write() as tx:
            tx.execute(_UPDATE_OWN, {**self._key, "holder": None, "until": 0.0})

    @property
    def _key(self) -> dict[str, Any]:
        return {"own": self.name, "own_epoch": self.epoch}


def acquire(database: Database, name: str, ttl: float, me: Holder) -> Lease:
    """Take a lease for ``ttl`` seconds as holder ``me``; raise ``Held`` if another process has it."""
    database.insert_absent(leases, {"name": name, "epoch": 0, "holder": None, "until": 0.0})
    where = sa.select(leases.c.epoch).where(leases.c.name == name)
    with database.read() as connection:
        epoch = connection.execute(where).scalar_one()
    # Read after the epoch: a process that takes the lease meanwhile changes the epoch, and the update below fails.
    holder = holder_of(database, name)
    values = {"epoch": epoch + 1, "holder": asdict(me), "until": database.clock() + ttl}
    if holder is None:
        with database.write() as tx:
            where_free = (leases.c.name == name, leases.c.epoch == epoch)
            if tx.execute(sa.update(leases).where(*where_free).values(values)).rowcount:
                return Lease(database, name, epoch + 1, ttl)
    who = holder or holder_of(database, name) or "another process"
    raise Held(f"{name} is held by {who}; wait for its end, or end that process")


def holder_of(database: Database, name: str) -> Holder | None:
    """Return the process that holds a lease now; None if none does, or if it died on this host."""
    with database.read() as connection:
        row = connection.execute(sa.select(leases).where(leases.c.name == name)).first()
    holder = Holder(**row.holder) if row and row.holder else None
    if row is None or holder is None or row.until <= database.clock():
        return None
    return None if holder.is_dead(Holder.current(database.clock())) else holder


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
