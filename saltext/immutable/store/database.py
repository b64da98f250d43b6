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


class Unusable(CommandExecutionError):  # type: ignore[misc]
    """The database cannot be used: its disk is full, say, or it cannot be reached."""

    orig: object = None


class Database:
    """Transactions on a database that has all tables of `schema`. Any thread may call."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._engine = engine
        self._reads = engine if _is_sqlite(engine) else engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Self:
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

    def once(self, key: str, value: str) -> str:
        """Return the value of ``key``, which is written exactly once."""
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
def _plainly() -> Iterator[None]:
    """Raise `Unusable` where the database cannot do its work; errors of ours stay as they are."""
    try:
        yield
    except OperationalError as err:
        said = Unusable(
            f"the store cannot be used: {err.orig}; mend that and give the same command again: "
            "it carries on what was begun"
        )
        said.orig = err.orig
        raise said from err


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
