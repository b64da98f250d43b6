"""Tests that every traffic adapter has to pass. A test class inherits from ``TrafficContract``.

It has to define two fixtures: ``traffic``, an adapter with nothing attached, and ``addresses``, at least three at which
something serves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from saltext.immutable.traffic import Traffic, TrafficStatus

FIRST, SECOND, LONG = "web-a1.example.com", "web-b2.example.com", f"web-{'x' * 184}.example.com"


def state(traffic: Traffic, minion_id: str) -> str | None:
    """Return the state of a machine, or None."""
    found = traffic.status().get(minion_id)
    return found.state if found else None


class TrafficContract:
    """Each call may be repeated, may come from any thread, and is no error for a machine that is missing."""

    def test_nothing_is_attached_at_first(self, traffic, addresses):
        assert traffic.status() == {}

    def test_an_attached_machine_is_in(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        assert set(traffic.status()) == {FIRST}
        assert isinstance(traffic.status()[FIRST], TrafficStatus)
        assert state(traffic, FIRST) == "in"

    def test_attaching_again_changes_nothing(self, traffic, addresses):
        for _ in range(3):
            traffic.attach(FIRST, addresses[0])
        assert (len(traffic.status()), state(traffic, FIRST)) == (1, "in")

    def test_draining_concerns_one_machine_and_may_be_repeated(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        traffic.attach(SECOND, addresses[1])
        for _ in range(3):
            traffic.drain(FIRST)
        assert (state(traffic, FIRST), state(traffic, SECOND)) == ("draining", "in")

    def test_a_drained_machine_can_come_back(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        traffic.drain(FIRST)
        traffic.attach(FIRST, addresses[0])
        assert state(traffic, FIRST) == "in"

    def test_a_machine_may_come_back_at_another_address(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        traffic.drain(FIRST)
        traffic.attach(FIRST, addresses[1])
        assert state(traffic, FIRST) == "in"

    def test_a_removed_machine_is_forgotten_and_may_be_removed_again(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        traffic.attach(SECOND, addresses[1])
        for _ in range(3):
            traffic.remove(FIRST)
        assert set(traffic.status()) == {SECOND}

    def test_a_machine_that_is_in_can_be_removed_at_once_and_a_drained_one_too(self, traffic, addresses):
        for minion_id, address in ((FIRST, addresses[0]), (SECOND, addresses[1])):
            traffic.attach(minion_id, address)
        traffic.drain(SECOND)
        for minion_id in (FIRST, SECOND):
            traffic.remove(minion_id)
        assert traffic.status() == {}

    def test_a_removed_machine_can_be_attached_again(self, traffic, addresses):
        traffic.attach(FIRST, addresses[0])
        traffic.drain(FIRST)
        traffic.remove(FIRST)
        traffic.attach(FIRST, addresses[0])
        assert state(traffic, FIRST) == "in"

    def test_an_absent_machine_is_no_error_and_none_comes_of_it(self, traffic, addresses):
        traffic.drain(FIRST)
        traffic.remove(FIRST)
        assert traffic.status() == {}

    def test_the_longest_minion_id_keeps_its_name(self, traffic, addresses):
        assert len(LONG) == 200
        traffic.attach(LONG, addresses[0])
        traffic.drain(LONG)
        assert state(traffic, LONG) == "draining"
        traffic.remove(LONG)
        assert traffic.status() == {}

    def test_many_threads_attach_drain_and_remove(self, traffic, addresses):
        names = [f"web-{number}.example.com" for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: traffic.attach(name, addresses[0]), names * 3))
            assert {one.state for one in traffic.status().values()} == {"in"}
            assert set(traffic.status()) == set(names)
            list(pool.map(traffic.drain, names[:16] * 2))
            list(pool.map(traffic.remove, names[:8] * 2))
        found = traffic.status()
        assert [found[name].state for name in names[8:]] == ["draining"] * 8 + ["in"] * 8
        assert len(found) == 16

    def test_two_threads_race_for_one_machine(self, traffic, addresses):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: traffic.attach(FIRST, addresses[0]), range(16)))
            assert state(traffic, FIRST) == "in"
            list(pool.map(lambda _: traffic.remove(FIRST), range(16)))
        assert traffic.status() == {}
