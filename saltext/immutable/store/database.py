"""The database below the store: SQLite by default, any SQLAlchemy URL where several masters share fleets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateTable

from saltext.immutable.store import schema
from saltext.immutable.store.schema import meta

if TYPE_CHECKING:
    from typing_extensions import Self


LOCK_WAIT = 60.0
"""Seconds for which a command waits while another process has SQLite's lock."""


class StoreUnusable(CommandExecutionError):  # type: ignore[misc]
    """The database cannot be used: for example, its disk is full, or it cannot be reached."""

    orig: object = None
    """The error of the database driver."""


class Database:
    """Transactions on a database that has all tables of `schema`. Any thread may call."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._engine = engine
        self._reads = engine if _is_sqlite(engine) else engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the store at an SQLAlchemy URL, and create missing tables and columns.

        Raises ``SaltInvocationError`` for a wrong URL, ``CommandExecutionError`` if the database cannot be opened.
        """
        try:
            where = sa.make_url(url)
        except ArgumentError as err:
            raise SaltInvocationError(
                "immutable:store in the master config is not an SQLAlchemy URL; leave it out, or write "
                "sqlite:////var/lib/immutable/store.sqlite or postgresql+psycopg://user:password@host/name"
            ) from err
        try:
            return cls(_prepared(where), clock)
        except (SQLAlchemyError, StoreUnusable, OSError, ImportError) as err:
            if locked := _locked(getattr(err, "orig", None), where):
                raise CommandExecutionError(locked) from err
            raise CommandExecutionError(
                f"the store {where} cannot be opened: {getattr(err, 'orig', err)}; let the master's user write there, "
                "or set immutable:store in the master config to another URL"
            ) from err

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for reading: it has no transaction, and waits for no lock."""
        with _explained(self._engine.url), self._reads.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that does not depend on a lease. (`Lease.write` opens one that does.)"""
        with _explained(self._engine.url), _transaction(self._engine) as tx:
            yield tx

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def get_or_create(self, key: str, value: str) -> str:
        """Return the value of ``key`` in the table ``meta``; if there is none, write ``value`` first."""
        self.insert_absent(meta, {"key": key, "value": value})
        with self.read() as connection:
            query = sa.select(meta.c.value).where(meta.c.key == key)
            return cast(str, connection.execute(query).scalar_one())

    def insert_absent(self, table: sa.Table, row: dict[str, Any]) -> None:
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


@contextmanager
def _explained(url: sa.URL) -> Iterator[None]:
    """Turn an operational error of the database into `StoreUnusable`, which says what to do."""
    try:
        yield
    except OperationalError as err:
        other = f"the store cannot be used: {err.orig}; correct that and run the same command again: "
        unusable = StoreUnusable(_locked(err.orig, url) or f"{other}it continues what was begun")
        unusable.orig = err.orig
        raise unusable from err


def _locked(error: object, url: sa.URL) -> str | None:
    """Return a sentence if another process locked the database for longer than we wait; None for other errors."""
    if "database is locked" not in str(error):
        return None
    holders = ", ".join(_holders(str(url.database))) or "a process that `fuser` names"
    return (
        f"the store {url} has been locked by {holders} for {LOCK_WAIT:g} s; look at what that process does, or end it, "
        "then run the same command again: it continues what was begun"
    )


def _holders(database: str) -> list[str]:
    """Return the processes of this host that hold a lock of an SQLite database, from /proc/locks."""
    inodes = {os.stat(path).st_ino for path in (database, f"{database}-shm") if os.path.exists(path)}
    with suppress(OSError):
        fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pids = {words[-4] for words in fields if words[-3].rpartition(":")[2] in map(str, inodes)}
        return [_named(pid) for pid in sorted(pids - {str(os.getpid())}, key=int)]
    return []


def _named(pid: str) -> str:
    with suppress(OSError):
        return f"process {pid} ({Path('/proc', pid, 'comm').read_text().strip()})"
    return f"process {pid}"


def _prepared(url: sa.URL) -> sa.Engine:
    """Return the engine of a database after creating missing tables and columns in it."""
    engine = sa.create_engine(url)
    if _is_sqlite(engine):
        _prepare_sqlite(engine)
    with _transaction(engine) as tx:
        for table in schema.metadata.sorted_tables:
            tx.execute(CreateTable(table, if_not_exists=True))
        _add_columns(tx)
    return engine


def _add_columns(tx: sa.Connection) -> None:
    """Add to tables of an older version the columns that they lack; each is nullable or has a default."""
    known = sa.inspect(tx)
    for table in schema.metadata.sorted_tables:
        existing = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in existing:
                definition = CreateColumn(column).compile(dialect=tx.dialect)
                tx.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Set up SQLite for several processes. Only the owner may read the file, since it holds a secret."""
    if engine.url.database and engine.url.database != ":memory:":
        path = Path(engine.url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for pragma in (f"busy_timeout = {LOCK_WAIT * 1000:.0f}", "journal_mode = WAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


@contextmanager
def _transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.begin() as tx:
        if _is_sqlite(engine):  # otherwise a transaction that reads first fails if another one wrote meanwhile
            tx.exec_driver_sql("BEGIN IMMEDIATE")
        yield tx
