"""While one bakes nobody deletes, and while one deletes nobody begins to bake."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import locks
from saltext.immutable.store import Held, Store
from saltext.immutable.store.schema import leases


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    yield opened
    opened.close()


def test_who_deletes_is_told_who_bakes(store):
    says = "pid .* bakes web, and no image is deleted"
    with (
        locks.baking(store, "web", print),
        pytest.raises(CommandExecutionError, match=says),
        locks.deleting(store),
    ):
        pytest.fail("a bake was under way")


def test_any_number_may_bake_at_once(store):
    with locks.baking(store, "web", print), locks.baking(store, "web", print), locks.baking(store, "db", print):
        pass
    with locks.deleting(store):
        pass


def test_who_bakes_waits_for_who_deletes_and_says_so(store, monkeypatch):
    deleting = locks.deleting(store)
    deleting.__enter__()
    said = []
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: deleting.__exit__(None, None, None))
    with locks.baking(store, "web", lambda message, *_, **__: said.append(message)):
        assert said[0].startswith("waiting: pid")


def test_two_never_delete_at_once(store):
    with locks.deleting(store), pytest.raises(Held, match="deleting images is held by pid"), locks.deleting(store):
        pass


def test_a_bake_that_was_killed_is_no_bake_and_is_forgotten(store):
    bake = locks.baking(store, "web", print)
    bake.__enter__()
    with store.write() as tx:
        row = tx.execute(sa.select(leases)).one()
        tx.execute(sa.update(leases).values(holder={**row.holder, "pid": 2**22 + 1}))
    with locks.deleting(store):
        assert not store.taken("baking ")


def test_no_lease_of_a_bake_stays(store):
    with pytest.raises(RuntimeError), locks.baking(store, "web", print):
        raise RuntimeError
    with store.read() as connection:
        assert not connection.execute(sa.select(leases)).all()
