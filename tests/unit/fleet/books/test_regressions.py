"""Regressions in the books of rollouts."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing

from sqlalchemy.dialects import postgresql

from saltext.immutable.fleet.books import queries
from saltext.immutable.fleet.books.budgets import Budget, Need
from saltext.immutable.spec.model import Amount, Budgets
from saltext.immutable.store import Store


def test_a_null_in_a_part_of_the_union_has_a_type():
    sql = str(queries.UPDATES.compile(dialect=postgresql.dialect()))
    assert "NULL AS" in sql, "some parts have no value"
    assert not re.findall(r"(?<!CAST\()NULL AS (?!VARCHAR|TEXT|INTEGER|FLOAT)", sql), "UNION types cannot be matched"


def test_a_reservation_of_a_time_that_has_not_come_is_void():
    now = [10_000.0]
    with closing(Store.open("sqlite://", clock=lambda: now[0])) as store, ExitStack() as held:
        common = Budgets(launches=Amount(2))
        dead, alive = (Budget(name, all_fleets=common) for name in ("dead", "alive"))
        lease = held.enter_context(store.lease("fleet dead"))
        assert dead.reserve(lease, Need(launches=2), 3, now[0]) == Need(launches=2)
        other = held.enter_context(store.lease("fleet alive"))
        assert alive.reserve(other, Need(launches=2), 3, now[0]) == Need(launches=0)
        now[0] -= 3600.0
        assert alive.reserve(other, Need(launches=2), 3, now[0]) == Need(launches=2)
