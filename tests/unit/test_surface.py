"""What operators, reactors, other programs and third parties rely on changes only where that is meant."""

from __future__ import annotations

import pytest

from tests.support.surface import PARTS
from tests.support.surface.files import WRITE, difference


@pytest.mark.parametrize("part", PARTS)
def test_the_public_surface_is_as_written_down(part):
    if found := difference(part, PARTS[part]()):
        pytest.fail(f"the public surface has changed; if that is meant, write it down: {WRITE}\n{found}", pytrace=False)
