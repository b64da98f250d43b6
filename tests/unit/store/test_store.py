"""The store: images, channels and leases; what may be deleted; errors of the database."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.store import Fenced, Held, Holder, Image, Store, StoreUnusable, database
from saltext.immutable.store import schema as tables
from tests.support.postgresql import emptied, postgresql


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(clock: Clock, request: pytest.FixtureRequest) -> Iterator[Store]:
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("server")
    opened = emptied(Store.open(url, clock=clock))
    yield opened
    opened.close()


def image(digest: str, recipe: str = "web", created: float = 1.0) -> Image:
    return Image(digest * 8, recipe, ("base", digest * 8), created, True, {"seconds": 3})


def test_a_second_opening_is_the_same_installation(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/store.sqlite"
    first, second = Store.open(url), Store.open(url)
    assert len(first.installation) == 16
    assert (first.installation, first.secret) == (second.installation, second.secret)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        pytest.param("store.sqlite", SaltInvocationError, "immutable:store .* write sqlite:////", id="no URL"),
        pytest.param("nodb://host/name", CommandExecutionError, "nodb://.* immutable:store", id="no such database"),
        pytest.param("sqlite:////proc/no/store.sqlite", CommandExecutionError, "the master's user", id="no such place"),
        pytest.param("sqlite:////proc/version", CommandExecutionError, "version cannot be opened", id="no database"),
        pytest.param("nodb://jane:secret@host/name", CommandExecutionError, r"jane:\*\*\*@", id="no password is shown"),
    ],
)
def test_a_store_that_cannot_be_opened_raises_what_to_do(url, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_a_full_disk_raises_what_to_do_and_keeps_what_was_written() -> None:
    store = Store.open("sqlite://")
    with store.write() as tx:
        pages = tx.execute(sa.text("PRAGMA page_count")).scalar_one()
        tx.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
    large = replace(image("0123abcd"), report={"large": "x" * 100_000})
    with pytest.raises(CommandExecutionError, match="cannot be used: database or disk is full; .* it continues"):
        store.add_image(large)
    assert store.images() == []
    with store.write() as tx:
        tx.execute(sa.text(f"PRAGMA max_page_count = {pages + 100}"))
    store.add_image(large)
    assert store.images() == [large]


LOCK = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute(sys.argv[2]); print("locked", flush=True)
time.sleep(float(sys.argv[3])) if len(sys.argv) > 3 else sys.stdin.read()
"""


def lock(file: Path, statement: str, *seconds: str) -> subprocess.Popen[bytes]:
    """Start a process that locks an SQLite database, for some seconds or until its input is closed."""
    command = [sys.executable, "-c", LOCK, str(file), statement, *seconds]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == b"locked\n"
    return other


def restored(file: Path) -> None:
    """Make an SQLite database without a write-ahead log of the one at ``file``, as backups are."""
    with closing(sqlite3.connect(file)) as store:
        store.execute(f"VACUUM INTO '{file}.copy'")
    Path(f"{file}.copy").rename(file)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("prepare", [lambda file: None, restored], ids=["in use", "a restored copy"])
def test_a_store_that_another_process_locked_names_that_process(tmp_path, monkeypatch, statement, prepare) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT", 0.6)
    file, url = tmp_path / "store.sqlite", f"sqlite:///{tmp_path}/store.sqlite"
    Store.open(url).close()
    prepare(file)
    with lock(file, statement) as other:
        began = time.monotonic()
        with pytest.raises(CommandExecutionError, match=r"for 1 s; .* run the same command again") as caught:
            Store.open(url).add_image(image("0123abcd"))
        assert time.monotonic() - began >= 0.6
        assert f"has been locked by process {other.pid} (python" in str(caught.value)
        other.stdin.close()
    Store.open(url).add_image(image("0123abcd"))


@pytest.mark.parametrize("prepare", [lambda file: None, restored], ids=["in use", "a restored copy"])
def test_a_lock_that_ends_in_time_is_waited_for(tmp_path, prepare) -> None:
    file, url = tmp_path / "store.sqlite", f"sqlite:///{tmp_path}/store.sqlite"
    store = Store.open(url)
    store.close()
    prepare(file)
    with lock(file, "BEGIN IMMEDIATE", "0.5"):
        Store.open(url).add_image(image("0123abcd"))


def test_an_open_store_that_another_process_locks_names_that_process(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT", 0.2)
    store = Store.open(f"sqlite:///{tmp_path}/store.sqlite")
    with lock(tmp_path / "store.sqlite", "BEGIN IMMEDIATE") as other:
        with pytest.raises(CommandExecutionError, match=f"locked by process {other.pid} .*run the same command again"):
            store.add_image(image("0123abcd"))
        other.stdin.close()
    store.add_image(image("0123abcd"))


@pytest.mark.parametrize("of", ["LOCK TABLE images", "UPDATE meta SET value = value"])
def test_a_lock_of_postgresql_is_waited_for_as_long_and_its_session_is_named(server, monkeypatch, of) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT", 0.6)
    store = Store.open(server)
    with store.write() as other:
        other.execute(sa.text(of))
        pid = other.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        who = rf"locked by session {pid} \(saltext.immutable, pid {os.getpid()} on .*, user salt\) for 1 s; look at"
        with pytest.raises(StoreUnusable, match=who), store.write() as tx:
            tx.execute(sa.text("SELECT * FROM images"))
            tx.execute(sa.text("UPDATE meta SET value = value"))
    store.close()


def test_the_secret_is_for_the_owner_only(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path}/new/store.sqlite")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()} == {0o600}


def test_images_come_newest_first_and_are_added_once(store: Store) -> None:
    old, new, other = image("aaaaaaa1", created=1), image("aaaaaaa2", created=2), image("bbbbbbb1", "base", 3)
    for each in (old, new, other, old):
        store.add_image(each)
    assert store.images("web") == [new, old]
    assert store.images() == [other, new, old]
    assert new.name == "web@aaaaaaa2aaaa"


@pytest.mark.parametrize(
    "ref",
    [
        pytest.param("aaaaaaa1" * 8, id="the full digest"),
        pytest.param("aaaaaaa1", id="a prefix"),
        pytest.param("web@aaaaaaa1", id="recipe and prefix"),
        pytest.param("web:stable", id="recipe and channel"),
    ],
)
def test_an_image_is_found_by(store: Store, ref: str) -> None:
    store.add_image(image("aaaaaaa1"))
    store.add_image(image("aaaaaaa2"))
    store.set_channel("web", "stable", "aaaaaaa2" * 8)
    store.set_channel("web", "stable", "aaaaaaa1" * 8)
    assert store.image(ref) == image("aaaaaaa1")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        pytest.param("aaaaaa", "could be any of web@", id="ambiguous: names the candidates"),
        pytest.param("aaa", "there are: web@", id="too short: names what exists"),
        pytest.param("base@aaaaaaa1", "no image", id="of another recipe"),
        pytest.param("web:beta", "there are: web:stable", id="unknown channel: names the known ones"),
    ],
)
def test_an_image_is_not_found(store: Store, ref: str, message: str) -> None:
    store.add_image(image("aaaaaaa1"))
    store.add_image(image("aaaaaaa2"))
    store.set_channel("web", "stable", "aaaaaaa1" * 8)
    with pytest.raises(SaltInvocationError, match=message):
        store.image(ref)


def _record(store: Store, lineage: list[int], outcome: str | None) -> None:
    with store.write() as tx:
        tx.execute(sa.insert(tables.fleets).values(name="web", lineage=lineage, size=3))
        for number in (1, 2, 3, 4):
            row = {"fleet": "web", "number": number, "image": f"aaaaaaa{number}" * 8}
            tx.execute(sa.insert(tables.generations).values(row | dict(provider="p", settings={}, created=1)))
        row = {"fleet": "web", "kind": "roll", "source": 3, "target": 4, "old_size": 3, "outcome": outcome}
        more = dict(started=1, progress_at=1, direction="forward", failures={}, verdict="", reason="")
        tx.execute(sa.insert(tables.rollouts).values(row | more))


@pytest.mark.parametrize(
    ("number", "lineage", "outcome", "needed"),
    [
        pytest.param(3, [1, 2, 3], "done", "generation 3 of fleet web", id="what a fleet runs"),
        pytest.param(2, [1, 2, 3], "done", "generation 2 of fleet web", id="what it could roll back to"),
        pytest.param(1, [1, 2, 3], "done", None, id="older generations are only history"),
        pytest.param(4, [1, 2, 3], "rolled back", None, id="what failed"),
        pytest.param(4, [1, 2, 3], None, "generation 4 of fleet web", id="where a rollout goes"),
        pytest.param(4, [1, 2, 3], "paused", "generation 4 of fleet web", id="where a paused rollout goes"),
        pytest.param(3, [], "done", None, id="a destroyed fleet needs nothing"),
    ],
)
def test_an_image_is_kept_for(
    store: Store, number: int, lineage: list[int], outcome: str | None, needed: str | None
) -> None:
    store.add_image(image(f"aaaaaaa{number}"))
    _record(store, lineage, outcome)
    if needed:
        with pytest.raises(CommandExecutionError, match=needed):
            store.delete_image(f"aaaaaaa{number}" * 8)
    else:
        store.delete_image(f"aaaaaaa{number}" * 8)
    assert bool(store.images()) == bool(needed)


def test_an_image_of_a_machine_is_kept_whatever_its_generation(store: Store) -> None:
    store.add_image(image("aaaaaaa1"))
    _record(store, [2, 3], "aborted")
    row = dict(minion_id="web-1", fleet="web", generation=1, intent="launched", born=1, reason="")
    with store.write() as tx:
        tx.execute(sa.insert(tables.machines).values(row))
    with pytest.raises(CommandExecutionError, match="generation 1 of fleet web"):
        store.delete_image("aaaaaaa1" * 8)


def test_an_image_in_a_channel_is_kept(store: Store) -> None:
    store.add_image(image("aaaaaaa1"))
    store.set_channel("web", "stable", "aaaaaaa1" * 8)
    with pytest.raises(CommandExecutionError, match="channel web:stable"):
        store.delete_image("aaaaaaa1" * 8)


def test_a_held_lease_names_its_holder(store: Store) -> None:
    with (
        store.lease("fleet web", user="root", jid="2025"),
        pytest.raises(Held, match=f"pid {os.getpid()} on .* since 1970-01-01 00:16:40.*user root, jid 2025"),
        store.lease("fleet web"),
    ):
        pass


def test_leases_of_other_names_and_released_ones_are_free(store: Store) -> None:
    with store.lease("fleet web") as first, store.lease("fleet db"):
        pass
    with store.lease("fleet web") as second:
        assert second.epoch == first.epoch + 1


def test_a_holder_that_does_not_renew_is_fenced_off(store: Store, clock: Clock) -> None:
    with store.lease("fleet web", ttl=30) as silent:
        clock.now += 31
        with store.lease("fleet web") as second:
            with pytest.raises(Fenced), silent.write() as tx:
                tx.execute(sa.insert(tables.meta).values(key="late", value="write"))
            silent.release()
            second.renew()
        with store.read() as connection:
            assert not connection.execute(sa.select(tables.meta).where(tables.meta.c.key == "late")).first()


def test_a_holder_that_renews_keeps_the_lease(store: Store, clock: Clock) -> None:
    with store.lease("fleet web", ttl=30) as lease:
        for _ in range(5):
            clock.now += 20
            lease.renew()
        assert store.holder("fleet web")


BOOT = Holder.current(0.0).boot.partition(" ")[0]


def _pretend(store: Store, **changes: object) -> None:
    """Let another process hold the lease of fleet web for an hour."""
    holder = {**asdict(Holder.current(store.clock())), **changes}
    with store.write() as tx:
        row = {"name": "fleet web", "epoch": 7, "holder": holder, "until": store.clock() + 3600}
        tx.execute(sa.insert(tables.leases).values(row))


def test_a_dead_process_of_this_boot_holds_nothing(store: Store) -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    _pretend(store, pid=process.pid)
    with store.lease("fleet web") as lease:
        assert lease.epoch == 8


def test_what_ran_before_this_host_was_booted_is_dead(store: Store) -> None:
    if not Holder.current(0.0).machine:
        pytest.skip("this host has no /etc/machine-id")
    _pretend(store, boot="another pid:[1]")
    with store.lease("fleet web") as lease:
        assert lease.epoch == 8


def test_a_pid_used_again_is_another_process(store: Store) -> None:
    _pretend(store, started="1")
    with store.lease("fleet web") as lease:
        assert lease.epoch == 8


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "elsewhere", "pid": 1, "started": "1"}, id="on another host it may be alive"),
        pytest.param(
            {"boot": f"{BOOT} pid:[1]", "pid": 1, "started": "1"}, id="in another namespace it may be alive"
        ),
        pytest.param(
            {"machine": "another", "boot": "another pid:[1]"}, id="on a host of the same name it may be alive"
        ),
        pytest.param(
            {"machine": "", "boot": "another pid:[1]"}, id="without a machine-id nobody knows which host it was"
        ),
    ],
)
def test_what_may_be_alive_is_waited_for(store: Store, clock: Clock, changes: dict[str, object]) -> None:
    _pretend(store, **changes)
    with pytest.raises(Held), store.lease("fleet web"):
        pass
    clock.now += 3601
    with store.lease("fleet web"):
        pass
