"""The database below the store: SQLite by default, any SQLAlchemy URL where several masters share fleets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            raise CommandExecutionError(
                f"the store {where} cannot be opened: {getattr(err, 'orig', err)}; let the master's user write there, "
                "or set immutable:store in the master config to another URL"
            ) from err

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for reading: it has no transaction, and waits for no lock."""
        with _explained(), self._reads.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that does not depend on a lease. (`Lease.write` opens one that does.)"""
        with _explained(), _transaction(self._engine) as tx:
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
def _explained() -> Iterator[None]:
    """Turn an operational error of the database into `StoreUnusable`, which says what to do."""
    try:
        yield
    except OperationalError as err:
        unusable = StoreUnusable(
            f"the store cannot be used: {err.orig}; correct that and run the same command again: "
            "it continues what was begun"
        )
        unusable.orig = err.orig
        raise unusable from err


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
        for pragma in ("busy_timeout = 10000", "journal_mode = WAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")


def _is_sqlite(engine: sa.Engine) -> bool:
    return engine.dialect.name == "sqlite"


@contextmanager
def _transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.begin() as tx:
        if _is_sqlite(engine):  # otherwise a transaction that reads first fails if another one wrote meanwhile
            tx.exec_driver_sql("BEGIN IMMEDIATE")
        yield tx
