"""What is remembered: images, channels, generations, rollouts, the journal, machines and leases.

The tables of fleets are filled by ``fleet.ledger``; here they are only read to know which images are needed.
Times are seconds since the epoch.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateTable

from saltext.immutable.host import this_boot
from saltext.immutable.store import schema
from saltext.immutable.store.channels import Move, What, move
from saltext.immutable.store.needs import needed
from saltext.immutable.store.revocations import Revocation, refused, standing
from saltext.immutable.store.schema import channels, contents, enrolled, images, leases, meta, proofs, tests

_MINE = sa.update(leases).where(leases.c.name == sa.bindparam("mine"), leases.c.epoch == sa.bindparam("my_epoch"))


@dataclass(frozen=True)
class Image:
    """A baked recipe."""

    digest: str
    recipe: str
    layers: tuple[str, ...]
    """Digests, the root first."""
    created: float
    read_only: bool
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return what people read: ``web@3f2a9c1d04be``."""
        return f"{self.recipe}@{self.digest[:12]}"


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


class Held(CommandExecutionError):  # type: ignore[misc]
    """Somebody else holds the lease."""


class Fenced(CommandExecutionError):  # type: ignore[misc]
    """The lease was lost: somebody else took it after we had been silent for too long."""


class Unusable(CommandExecutionError):  # type: ignore[misc]
    """The database says no: its disk is full, it cannot be reached."""

    orig: object = None


class Lease:
    """The right to act on something, kept by a ``beat`` or ``write`` at least every ``ttl`` seconds."""

    def __init__(self, store: Store, name: str, epoch: int, ttl: float) -> None:
        self.name = name
        self.epoch = epoch
        self.ttl = ttl
        self._store = store

    def beat(self) -> None:
        """Hold on for another ``ttl``."""
        with self.write():
            pass

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits only while the lease is ours; it renews the lease."""
        with self._store.write() as tx:
            until = self._store.clock() + self.ttl
            if not tx.execute(_MINE, {**self._me, "until": until}).rowcount:
                raise Fenced(f"the lease {self.name!r} was taken over: this process may do no more")
            yield tx

    def release(self) -> None:
        """Let go; a lease that was lost already stays with its new holder."""
        with self._store.write() as tx:
            tx.execute(_MINE, {**self._me, "holder": None, "until": 0.0})

    @property
    def _me(self) -> dict[str, Any]:
        return {"mine": self.name, "my_epoch": self.epoch}


@contextmanager
def _plainly() -> Iterator[None]:
    """Let what the database cannot do arrive as a sentence; what we did wrong stays a bug."""
    try:
        yield
    except OperationalError as err:
        said = Unusable(
            f"the store cannot be used: {err.orig}; mend that and give the same command again: "
            "it carries on what was begun"
        )
        said.orig = err.orig
        raise said from err


class Store:
    """The database: SQLite by default, any SQLAlchemy URL where several masters share fleets."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._engine = engine
        self._reads = engine if _is_sqlite(engine) else engine.execution_options(isolation_level="AUTOCOMMIT")
        self.installation = self._once("installation", secrets.token_hex(8))
        """16 hexadecimal digits that tell our machines from those of another master."""
        self.secret = bytes.fromhex(self._once("secret", secrets.token_hex(32)))
        """For keyed hashes."""

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Store:
        """Open the store at an SQLAlchemy URL; make what is missing of it."""
        try:
            where = sa.make_url(url)
        except ArgumentError as err:
            raise SaltInvocationError(
                "immutable:store in the master config is no SQLAlchemy URL; leave it out, or write "
                "sqlite:////var/lib/immutable/store.sqlite or postgresql+psycopg://user:password@host/name"
            ) from err
        try:
            return cls(_prepared(where), clock)
        except (SQLAlchemyError, Unusable, OSError, ImportError) as err:
            raise CommandExecutionError(
                f"the store {where} cannot be opened: {getattr(err, 'orig', err)}; let the master's user write there, "
                "or set immutable:store in the master config to another place"
            ) from err

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection that only reads: it has no transaction, and waits for nobody."""
        with _plainly(), self._reads.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that no lease guards."""
        with _plainly(), _transaction(self._engine) as tx:
            yield tx

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _once(self, key: str, value: str) -> str:
        """Return the value of ``key``, which is written exactly once."""
        self._insert_absent(meta, {"key": key, "value": value})
        with self.read() as connection:
            query = sa.select(meta.c.value).where(meta.c.key == key)
            return cast(str, connection.execute(query).scalar_one())

    def _insert_absent(self, table: sa.Table, row: dict[str, Any]) -> None:
        """Insert ``row`` unless its primary key is there already."""
        key = [column == row[column.name] for column in table.primary_key]
        with self.read() as connection:
            if connection.execute(sa.select(table).where(*key)).first():
                return
        try:
            with self.write() as tx:
                tx.execute(sa.insert(table).values(row))
        except IntegrityError:
            with self.read() as connection:
                if not connection.execute(sa.select(table).where(*key)).first():
                    raise

    # Images

    def add_image(self, image: Image) -> None:
        """Remember an image; one that is known already stays as it is."""
        row = {**asdict(image), "layers": list(image.layers), "report": dict(image.report)}
        self._insert_absent(images, row)

    def images(self, recipe: str | None = None) -> list[Image]:
        """Return the images (of ``recipe``), the newest first."""
        query = sa.select(images).order_by(images.c.created.desc(), images.c.digest)
        with self.read() as connection:
            rows = connection.execute(query if recipe is None else query.where(images.c.recipe == recipe))
            return [Image(**{**row, "layers": tuple(row["layers"])}) for row in rows.mappings()]

    def image(self, ref: str) -> Image:
        """Return the image that a digest, its first digits, ``web@digits`` or ``web:channel`` names."""
        ref = str(ref)  # Salt makes a number of digits
        recipe, colon, channel = ref.partition(":")
        if colon:
            return self._channel_image(recipe, channel)
        recipe, at, digits = ref.rpartition("@")
        found = [
            image
            for image in self.images(recipe if at else None)
            if len(digits) >= 6 and image.digest.startswith(digits)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise SaltInvocationError(f"{ref!r} could be any of {_names(found)}; give more digits")
        raise SaltInvocationError(
            f"no image {ref!r}; there are: {_names(self.images())}"
            " (give a digest, at least six digits of it, recipe@digits or recipe:channel)"
        )

    def _channel_image(self, recipe: str, channel: str) -> Image:
        digest = self.channel(recipe, channel)
        if digest:
            return self.image(digest)
        query = sa.select(channels.c.recipe, channels.c.channel).order_by(*channels.primary_key)
        with self.read() as connection:
            known = [f"{row.recipe}:{row.channel}" for row in connection.execute(query)]
        raise SaltInvocationError(
            f"no image is in {recipe}:{channel}; there are: {', '.join(known) or 'none'}"
            f" (salt-run image.bake {recipe} makes one)"
        )

    def revoked(self) -> dict[str, Revocation]:
        """Return the images that must not be rolled, by digest: those that failed their tests are among them."""
        with self.read() as connection:
            return refused(connection)

    def revocations(self) -> dict[str, Revocation]:
        """Return the images that somebody revoked, by digest."""
        with self.read() as connection:
            return standing(connection)

    def usable(self, ref: str) -> Image:
        """Return the image that ``ref`` names, to roll or promote it; raise where it is revoked or failed its tests."""
        image = self.image(ref)
        if revocation := self.revoked().get(image.digest):
            recipe, colon, channel = str(ref).partition(":")
            promote = f"promote another: salt-run image.promote {recipe}@... channel={channel}"
            mend = promote if colon else f"take another: salt-run image.list {image.recipe} names them"
            raise CommandExecutionError(f"{revocation}; {mend}")
        return image

    def delete_image(
        self, digest: str, *, with_channels: bool = False, test: bool = False, who: str | None = None
    ) -> None:
        """Forget an image that nothing needs; ``with_channels``: channels that name it go too; ``test``: only check."""
        with self.write() as tx:
            if found := needed(tx, digest, with_channels):
                raise CommandExecutionError(f"image {digest[:12]} is needed by {', '.join(found)}")
            if test:
                return
            why = f"image {digest[:12]} was deleted"
            for row in tx.execute(sa.select(channels).where(channels.c.digest == digest)).all():
                move(tx, Move(row.recipe, row.channel, self.clock(), "delete", digest, None, why, who))
            tx.execute(sa.delete(images).where(images.c.digest == digest))
            tx.execute(sa.delete(contents).where(contents.c.digest == digest))
            tx.execute(sa.delete(proofs).where(proofs.c.digest == digest))
            tx.execute(sa.delete(tests).where(tests.c.digest == digest))

    def enrolled(self) -> set[str]:
        """Return the ids that bakes were given a key for, and not let go of."""
        with self.read() as connection:
            return set(connection.execute(sa.select(enrolled.c.minion_id)).scalars())

    def note_enrolled(self, minion_id: str) -> None:
        """Remember that a bake is about to get a key."""
        self._insert_absent(enrolled, {"minion_id": minion_id})

    def note_forgotten(self, minion_id: str) -> None:
        """Forget it: the key is deleted."""
        with self.write() as tx:
            tx.execute(sa.delete(enrolled).where(enrolled.c.minion_id == minion_id))

    def channels(self) -> dict[str, list[str]]:
        """Return the channels of each image that has one, by digest."""
        named: dict[str, list[str]] = {}
        with self.read() as connection:
            for row in connection.execute(sa.select(channels).order_by(channels.c.channel)):
                named.setdefault(row.digest, []).append(row.channel)
        return named

    def channel(self, recipe: str, channel: str) -> str | None:
        """Return the digest that a channel names."""
        where = (channels.c.recipe == recipe, channels.c.channel == channel)
        with self.read() as connection:
            return cast("str | None", connection.execute(sa.select(channels.c.digest).where(*where)).scalar())

    def set_channel(
        self,
        recipe: str,
        channel: str,
        digest: str,
        *,
        what: What = "bake",
        reason: str = "",
        who: str | None = None,
    ) -> Move | None:
        """Let a channel name an image that may be rolled, and write it down; None: it names that already."""
        with self.write() as tx:
            if revocation := refused(tx).get(digest):
                raise CommandExecutionError(f"{recipe}:{channel} stays as it is: {revocation}")
            return move(tx, Move(recipe, channel, self.clock(), what, None, digest, reason, who))

    # Leases

    @contextmanager
    def lease(
        self, name: str, ttl: float = 30.0, *, user: str | None = None, jid: str | None = None
    ) -> Iterator[Lease]:
        """Hold ``name`` while the block runs; raise ``Held`` where somebody else does."""
        lease = self._acquire(name, ttl, Holder.this(self.clock(), user, jid))
        try:
            yield lease
        finally:
            lease.release()

    def holder(self, name: str) -> Holder | None:
        """Return who holds ``name`` now."""
        with self.read() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).first()
        holder = Holder(**row.holder) if row and row.holder else None
        if row is None or holder is None or row.until <= self.clock():
            return None
        return None if holder.dead_here(Holder.this(self.clock())) else holder

    def taken(self, beginning: str) -> list[str]:
        """Return the leases whose names begin so and that somebody took, who may be dead."""
        where = (leases.c.name.startswith(beginning), leases.c.holder.is_not(None))
        with self.read() as connection:
            return list(connection.execute(sa.select(leases.c.name).where(*where).order_by(leases.c.name)).scalars())

    def forget_lease(self, name: str) -> None:
        """Forget a lease that is over, and whose name nobody takes a second time."""
        with self.write() as tx:
            tx.execute(sa.delete(leases).where(leases.c.name == name))

    def _acquire(self, name: str, ttl: float, me: Holder) -> Lease:
        self._insert_absent(leases, {"name": name, "epoch": 0, "holder": None, "until": 0.0})
        where = sa.select(leases.c.epoch).where(leases.c.name == name)
        with self.read() as connection:
            epoch = connection.execute(where).scalar_one()
        # Read after the epoch: whoever comes between changes the epoch, and the update below misses.
        holder = self.holder(name)
        values = {"epoch": epoch + 1, "holder": asdict(me), "until": self.clock() + ttl}
        if holder is None:
            with self.write() as tx:
                where_free = (leases.c.name == name, leases.c.epoch == epoch)
                if tx.execute(sa.update(leases).where(*where_free).values(values)).rowcount:
                    return Lease(self, name, epoch + 1, ttl)
        raise Held(f"{name} is held by {holder or self.holder(name) or 'another process'}")


def _names(found: list[Image]) -> str:
    names = [image.name for image in found[:10]] + (["..."] if len(found) > 10 else [])
    return ", ".join(names) or "none"


def _prepared(url: sa.URL) -> sa.Engine:
    """Return the engine of a database that has all our tables."""
    engine = sa.create_engine(url)
    if _is_sqlite(engine):
        _prepare_sqlite(engine)
    with _transaction(engine) as tx:
        for table in schema.metadata.sorted_tables:
            tx.execute(CreateTable(table, if_not_exists=True))
        _add_columns(tx)
    return engine


def _add_columns(tx: sa.Connection) -> None:
    """Give tables that an older version made the columns that came later; each is nullable or has a default."""
    known = sa.inspect(tx)
    for table in schema.metadata.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=tx.dialect)
                tx.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Set up SQLite for several processes, and keep the file (it holds a secret) to its owner."""
    if engine.url.database and engine.url.database != ":memory:":
        path = Path(engine.url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for pragma in ("busy_timeout = 10000", "journal_mode = WAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


@contextmanager
def _transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.begin() as tx:
        if _is_sqlite(engine):  # where it reads first and writes later, SQLite fails if another wrote in between
            tx.exec_driver_sql("BEGIN IMMEDIATE")
        yield tx
