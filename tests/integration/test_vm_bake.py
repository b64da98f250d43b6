"""States that need a kernel of their own bake in a virtual machine (``bake_in: vm``); its layer is like any other."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def report(estate):
    return estate.salt_run("image.bake", "virtual", "refresh=always")


def test_the_states_ran_with_a_kernel_of_their_own(estate, report):
    print(report.stderr)
    print(report.data)
    assert report.data["deferred"] == []
    assert 0
