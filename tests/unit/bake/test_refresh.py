"""What a bake does about updates is said in three words."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.bake import refresh


@pytest.mark.parametrize(
    ("value", "word"),
    [(False, "never"), (None, "never"), ("never", "never"), (True, "updates"), ("updates", "updates")]
    + [("always", "always")],
)
def test_words(value, word):
    assert refresh.wanted(value) == word


@pytest.mark.parametrize("value", ["sometimes", ["updates"], 3, ""])
def test_other_words_are_refused_with_those_that_there_are(value):
    with pytest.raises(SaltInvocationError, match="never, updates .* and always"):
        refresh.wanted(value)
