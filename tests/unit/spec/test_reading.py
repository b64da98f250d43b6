"""Properties of readers: every value is either returned or refused with a sentence."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions, reading, settings
from saltext.immutable.spec.model import Amount

YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)
READERS = [
    reading.mapping,
    reading.sequence,
    reading.text,
    reading.words,
    reading.name,
    reading.minion_id,
    reading.flag,
    reading.count,
    reading.amount,
    reading.duration,
]
KEYS = st.sampled_from(["recipes", "fleets", "from", "web", "base", "size", "strategy", "health", "provider"])


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@given(value=YAML)
def test_a_reader_returns_or_raises_a_sentence(reader, value):
    try:
        reader(value)
    except ValueError as err:
        assert str(err)


@given(value=st.recursive(YAML, lambda inner: st.dictionaries(KEYS, inner), max_leaves=12))
def test_any_pillar_and_config_is_read_or_refused(value):
    for read in (definitions, settings):
        try:
            read({"immutable": value})
        except SaltInvocationError as err:
            assert "immutable" in str(err)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_the_sum_of_its_parts(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total:
        assert reading.duration(f"{days}d{hours}h{minutes}m{seconds}s") == total
        assert reading.duration(total) == total


@pytest.mark.parametrize("value", ["", "5", "m", "10m1h", "-1s", "1.5h", "10M", -3, True, math.nan, None])
def test_no_duration(value):
    with pytest.raises(ValueError, match="must be"):
        reading.duration(value)


@given(st.integers(0, 100), st.integers(0, 1000))
def test_a_share_is_at_most_one_machine_from_its_own_other_rounding(percent, size):
    share = reading.amount(f"{percent}%")
    assert share == Amount(percent, percent=True)
    assert 0 <= share.down(size) <= share.up(size) <= min(size, share.down(size) + 1)
    assert reading.amount(percent) == Amount(percent)


@pytest.mark.parametrize(
    ("reader", "written"),
    [(reading.duration, "5m"), (reading.amount, "5%"), (reading.size("1M", "1G"), "5M"), (reading.name, "a5")],
)
def test_a_digit_is_one_of_ten(reader, written):
    reader(written)
    with pytest.raises(ValueError):
        reader(written.replace("5", "\u0665"))
