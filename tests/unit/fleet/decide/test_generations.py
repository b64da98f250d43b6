"""Which generation is the good one where the store is older than the machines."""

from __future__ import annotations

import pytest

from saltext.immutable.fleet.decide.generations import current_generation, lineage_to


@pytest.mark.parametrize(
    ("lineage", "running", "good"),
    [
        pytest.param([], [3, 3], [3], id="the store was lost"),
        pytest.param([1], [3, 3, 3], [1, 3], id="from before a roll"),
        pytest.param([1], [1, 1, 2], [1], id="from the middle of a roll that had not ended"),
        pytest.param([1], [1, 2, 2], [1, 2], id="from the middle of a roll, most machines are new"),
        pytest.param([1], [1, 2], [1], id="as many of each: the older one"),
        pytest.param([1, 2, 3], [1, 1, 1], [1], id="from before a rollback"),
        pytest.param([1, 2], [2, 2, 2], [1, 2], id="from before a scale, or a replacement"),
    ],
)
def test_the_good_generation_is_what_most_machines_run(lineage, running, good):
    current = current_generation({f"web-{number}": one for number, one in enumerate(running)})
    assert current is not None and lineage_to(lineage, current) == good


def test_without_machines_none_is():
    assert current_generation({}) is None
