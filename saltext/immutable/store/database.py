"""The database below the store: SQLite by default, any SQLAlchemy URL where several masters share fleets."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateTable

from saltext.immutable.store import database_locks, schema
from saltext.immutable.store.schema import meta

if TYPE_CHECKING:
    from typing_extensions import Self


LOCK_WAIT = 60.0
"""Seconds for which a command waits while another process has locked the database."""
_RETRY = 0.05
"""Seconds between two attempts where SQLite does not wait by itself."""
_LOCKED = "55P03"
"""PostgreSQL's code for a wait that was longer than lock_timeout."""


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
        began = time.monotonic()
        try:
            return cls(_prepared(where), clock)
        except (SQLAlchemyError, StoreUnusable, OSError, ImportError) as err:
            if _is_lock(getattr(err, "orig", None)):
                raise _locked(where, began) from err
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
    began = time.monotonic()
    try:
        yield
    except OperationalError as err:
        unusable = _locked(url, began) if _is_lock(err.orig) else _unusable(err.orig)
        unusable.orig = err.orig
        raise unusable from err


def _unusable(error: object) -> StoreUnusable:
    return StoreUnusable(
        f"the store cannot be used: {error}; correct that and run the same command again: it continues what was begun"
    )


def _is_lock(error: object) -> bool:
    """Tell whether an error of a driver says that another process locked the database for longer than we wait."""
    codes = (getattr(error, "sqlstate", None), getattr(error, "pgcode", None))
    return "database is locked" in str(error) or _LOCKED in codes


def _locked(url: sa.URL, began: float) -> StoreUnusable:
    if url.get_backend_name() == "sqlite":
        holders, instead = database_locks.of_sqlite(str(url.database)), "a process that `fuser` names"
    else:
        tables = list(schema.metadata.tables)
        holders, instead = database_locks.of_postgresql(url, tables), "a session that pg_stat_activity names"
    return StoreUnusable(
        f"the store {url} has been locked by {', '.join(holders) or instead} for {time.monotonic() - began:.0f} s; "
        "look at what that process does, or end it, then run the same command again: it continues what was begun"
    )


def _prepared(url: sa.URL) -> sa.Engine:
    """Return the engine of a database after creating missing tables and columns in it."""
    engine = sa.create_engine(url)
    if _is_sqlite(engine):
        _prepare_sqlite(engine)
    elif engine.dialect.name == "postgresql":
        _prepare_postgresql(engine)
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
        connection.execute(f"PRAGMA busy_timeout = {LOCK_WAIT * 1000:.0f}")
        connection.execute("PRAGMA foreign_keys = ON")
        _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: Any) -> None:
    """Set the journal of SQLite: a file that came from a backup has another, and busy_timeout does not count here."""
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as err:
            if not _is_lock(err) or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY)


def _prepare_postgresql(engine: sa.Engine) -> None:
    """Let no statement wait for a lock without end, and tell other sessions which process this one is."""

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        settings = (f"{LOCK_WAIT * 1000:.0f}", f"saltext.immutable, pid {os.getpid()} on {socket.gethostname()}"[:63])
        with closing(connection.cursor()) as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('application_name', %s, false)", settings
            )
        connection.commit()


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


@contextmanager
def _transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.begin() as tx:
        if _is_sqlite(engine):  # otherwise a transaction that reads first fails if another one wrote meanwhile
            tx.exec_driver_sql("BEGIN IMMEDIATE")
        yield tx
