"""Which processes hold a lock of the database, for the message of a command that waited for it in vain."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

# Who waits for a lock itself does hold locks, but is not whom to wait for.
_SESSIONS = sa.text("""
    SELECT DISTINCT a.pid, a.usename, a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.relation = ANY(SELECT oid FROM pg_class WHERE relname = ANY(:tables))
    AND a.datname = current_database() AND l.mode <> 'AccessShareLock' AND cardinality(pg_blocking_pids(a.pid)) = 0
    ORDER BY a.pid
""")


def of_sqlite(database: str) -> list[str]:
    """Return the other processes of this host that hold a lock of an SQLite database, from /proc/locks."""
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


def of_postgresql(url: sa.URL, tables: list[str]) -> list[str]:
    """Return the sessions of a PostgreSQL server that may write to ``tables`` now, as far as this user may see them."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            found = connection.execute(_SESSIONS, {"tables": tables})
            return [f"session {pid} ({name or 'without a name'}, user {user})" for pid, user, name in found]
    except SQLAlchemyError:
        return []
    finally:
        engine.dispose()
