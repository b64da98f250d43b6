"""Tests that every provider has to pass. A test class inherits from ``ProviderContract``.

It has to define three fixtures: ``provider``, with no machine of the fleets FLEET and OTHER; ``image``, the digest of
an image that it can launch; and ``wait``, a function that lets so many seconds pass. What is left is destroyed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.providers import Identity, Instance, Provider

FLEET, OTHER = "contract", "contract-other"
INSTALLATION = "0123456789abcdef"
PATIENCE = 60.0
"""Seconds within which a machine that was launched or destroyed is seen so, besides what the provider settles in."""


def identity(name: str, fleet: str = FLEET, generation: int = 1) -> Identity:
    """Return the identity of a machine of these tests."""
    return Identity(f"contract-{name}.example.com", fleet, generation, INSTALLATION)


class ProviderContract:
    """Each call may be repeated and may come from any thread; what a launch tags is in the list from then on."""

    @pytest.fixture
    def eventually(self, provider: Provider, wait: Callable[[float], None]) -> Callable[[Callable[[], bool]], None]:
        """Return what waits until the provider's list shows something."""

        def eventually(shown: Callable[[], bool]) -> None:
            for _ in range(int(PATIENCE + provider.settles)):
                if shown():
                    return
                wait(1.0)
            assert shown(), provider.list()

        return eventually

    @pytest.fixture(autouse=True)
    def clean(self, provider: Provider) -> Iterator[None]:
        yield
        for fleet in (FLEET, OTHER):
            for machine in provider.list(fleet):
                provider.destroy(machine.ref)

    def ours(self, provider: Provider) -> dict[str, Instance]:
        """Return the machines of these tests, by minion id; none is listed twice."""
        found = [machine for machine in provider.list() if machine.installation == INSTALLATION]
        assert len({machine.ref for machine in found}) == len({machine.minion_id for machine in found}) == len(found)
        return {machine.minion_id: machine for machine in found}

    def test_it_says_how_much_it_takes_at_once_and_when_it_settles(self, provider):
        assert provider.concurrency >= 1 and provider.settles >= 0.0

    def test_nothing_is_there_at_first(self, provider, image):
        assert self.ours(provider) == {}
        assert provider.list("no-such-fleet") == []

    def test_a_machine_is_listed_with_all_that_its_launch_tagged(self, provider, image, eventually):
        one = identity("one", generation=7)
        ref = provider.launch(provider.publish(image), one)
        eventually(lambda: one.minion_id in self.ours(provider))
        machine = self.ours(provider)[one.minion_id]
        assert isinstance(machine, Instance)
        assert (machine.ref, machine.fleet, machine.generation, machine.image) == (ref, FLEET, 7, image)
        assert (machine.running, machine.restarted, machine.ended_with_host) == (True, 0.0, False)
        assert machine.born > 0 and not machine.damaged

    def test_a_launch_and_a_publication_may_be_repeated(self, provider, image, eventually):
        one, published = identity("one"), {provider.publish(image) for _ in range(2)}
        refs = {provider.launch(each, one) for each in [*published] * 3}
        eventually(lambda: one.minion_id in self.ours(provider))
        assert (len(published), len(refs), len(self.ours(provider))) == (1, 1, 1)

    def test_launches_of_one_machine_at_once_make_one(self, provider, image, eventually):
        one, published = identity("one"), provider.publish(image)
        with ThreadPoolExecutor(4) as pool:
            refs = set(pool.map(lambda _: provider.launch(published, one), range(4)))
        eventually(lambda: one.minion_id in self.ours(provider))
        assert (len(refs), len(self.ours(provider))) == (1, 1)

    def test_a_fleet_lists_its_own_machines(self, provider, image, eventually):
        one, other = identity("one"), identity("two", OTHER)
        published = provider.publish(image)
        for each in (one, other):
            provider.launch(published, each)
        eventually(lambda: len(self.ours(provider)) == 2)
        assert [machine.minion_id for machine in provider.list(FLEET)] == [one.minion_id]
        assert [machine.minion_id for machine in provider.list(OTHER)] == [other.minion_id]

    def test_a_destroyed_machine_goes_and_no_other_one(self, provider, image, eventually):
        one, two = identity("one"), identity("two")
        published = provider.publish(image)
        refs = {each.minion_id: provider.launch(published, each) for each in (one, two)}
        eventually(lambda: len(self.ours(provider)) == 2)
        for _ in range(2):
            provider.destroy(refs[one.minion_id])
        eventually(lambda: set(self.ours(provider)) == {two.minion_id})

    def test_the_destruction_of_a_machine_that_never_was_is_no_error(self, provider, image):
        provider.destroy("contract-never.example.com")

    def test_a_console_is_text_also_of_a_machine_that_is_gone_or_never_was(self, provider, image, eventually):
        one = identity("one")
        ref = provider.launch(provider.publish(image), one)
        eventually(lambda: one.minion_id in self.ours(provider))
        assert isinstance(provider.console(ref), str)
        provider.destroy(ref)
        eventually(lambda: not self.ours(provider))
        assert isinstance(provider.console(ref), str)
        assert provider.console("contract-never.example.com") == ""

    def test_an_image_that_is_not_there_fails_and_leaves_no_machine(self, provider, image):
        with pytest.raises(CommandExecutionError):
            provider.launch(provider.publish("f" * 64), identity("one"))
        assert self.ours(provider) == {}
