"""A PostgreSQL of one's own, on a socket in its own folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from saltext.immutable.store import Store
from saltext.immutable.store.schema import metadata

# Nothing here has to outlive a power cut.
_SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=", "max_connections=20")


def programs() -> Path:
    """Return where PostgreSQL's programs are; skip the test that wants them where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    return found[-1].parent


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server, and give the URL of its database. It refuses root: then it is postgres's."""
    bin_ = programs()
    with TemporaryDirectory() as place:
        yield from _server(bin_, Path(place))


def _server(bin_: Path, place: Path) -> Iterator[str]:
    user, data = [], place / "data"
    if os.geteuid() == 0:
        shutil.chown(place, "postgres", "postgres")
        user = ["runuser", "-u", "postgres", "--"]

    def run(*words: object) -> None:
        subprocess.run([*user, *map(str, words)], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    run(bin_ / "initdb", "--pgdata", data, "--username=salt", "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"unix_socket_directories={place}"))
    run(bin_ / "pg_ctl", "--pgdata", data, "--log", place / "log", "--options", options, "--wait", "start")
    try:
        yield f"postgresql+psycopg://salt@/postgres?host={place}"
    finally:
        run(bin_ / "pg_ctl", "--pgdata", data, "--mode=immediate", "--wait", "stop")


def emptied(store: Store) -> Store:
    """Return a store without anything in it but who it is."""
    with store.write() as tx:
        for table in reversed(metadata.sorted_tables):
            if table.name != "meta":
                tx.execute(sa.delete(table))
    return store
