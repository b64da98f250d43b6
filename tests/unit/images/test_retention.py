"""Which images stay: needed ones always, others if ``keep`` or ``keep_for`` keeps them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.images.retention import Candidate, Rule, decide, duration

DAY = 86400.0
NOW = 1000 * DAY


def image(age: int, recipe: str = "web", **more) -> Candidate:
    """An image that is so many days old, called by its age."""
    return Candidate(f"{recipe}{age}", recipe, NOW - age * DAY, **more)


def kept(candidates, **rules) -> dict[str, str]:
    """Why each image is kept that is."""
    return {one.digest: one.reason for one in decide(candidates, rules, NOW) if one.kept}


def gone(candidates, **rules) -> dict[str, str]:
    """Why each other image is not."""
    return {one.digest: one.reason for one in decide(candidates, rules, NOW) if not one.kept}


@pytest.mark.parametrize(
    ("rule", "stay"),
    [
        pytest.param(Rule(keep=2), [1, 2], id="the newest two"),
        pytest.param(Rule(keep=9), [1, 2, 30, 91], id="more than there are"),
        pytest.param(Rule(keep_for=30 * DAY), [1, 2, 30], id="to the day"),
        pytest.param(Rule(keep_for=1), [], id="none is young enough"),
        pytest.param(Rule(keep=1, keep_for=30 * DAY), [1, 2, 30], id="young ones beyond the number"),
        pytest.param(Rule(keep=3, keep_for=DAY), [1, 2, 30], id="old ones within the number"),
        pytest.param(Rule(), [1, 2, 30, 91], id="nothing is said: all"),
    ],
)
def test_a_rule_keeps_images_that_either_setting_keeps(rule, stay):
    images = [image(age) for age in (30, 1, 91, 2)]
    assert sorted(kept(images, web=rule)) == sorted(f"web{age}" for age in stay)


def test_a_needed_image_stays_at_any_age():
    needed = image(500, needed=("channel web:stable", "machine web-1"))
    assert kept([needed, image(1)], web=Rule(keep=1))["web500"] == "needed by channel web:stable, machine web-1"


def test_a_revoked_image_has_no_rank():
    """Else five bad bakes would push out what a rollback goes to."""
    images = [image(1, revoked=True), image(2, revoked=True), image(3), image(4)]
    assert sorted(kept(images, web=Rule(keep=2))) == ["web3", "web4"]
    assert gone(images, web=Rule(keep=2))["web1"] == "revoked, and the newest 2 are kept"


def test_images_of_a_recipe_that_left_the_pillar_stay():
    found = kept([image(900, "old"), image(900)], web=Rule(keep_for=DAY))
    assert found == {"old900": "recipe old is not in the pillar, so nothing says how long its images are kept"}


def test_each_recipe_is_decided_separately():
    images = [image(1), image(2), image(1, "db"), image(2, "db")]
    assert sorted(kept(images, web=Rule(keep=1), db=Rule(keep=2))) == ["db1", "db2", "web1"]


def test_each_verdict_has_a_reason():
    images = [image(1), image(2), image(91)]
    rule = Rule(keep=1, keep_for=30 * DAY)
    assert kept(images, web=rule) == {"web1": "number 1 of the newest 1", "web2": "2d old, kept for 30d"}
    assert gone(images, web=rule) == {"web91": "number 3, and the newest 1 are kept; 91d old, and kept for 30d"}


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59.9, "59s"), (61, "1m1s"), (5401, "1h30m"), (90 * DAY + 1, "90d"), (-5, "0s")]
)
def test_duration_as_text(seconds, said):
    assert duration(seconds) == said


AGES = st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), max_size=12)
RULES = st.builds(Rule, st.none() | st.integers(1, 8), st.none() | st.integers(1, 40).map(lambda day: day * DAY))


@given(AGES, RULES)
def test_every_image_gets_one_verdict_and_more_time_or_number_never_keeps_less(ages, rule):
    images = [
        Candidate(f"{place}", "web", NOW - age * DAY, revoked, ("a channel",) if needed else ())
        for place, (age, revoked, needed) in enumerate(ages)
    ]
    stay = set(kept(images, web=rule))
    assert len(decide(images, {"web": rule}, NOW)) == len(images)
    assert {one.digest for one in images if one.needed} <= stay
    if rule.keep is not None:
        sound = sorted((one.created for one in images if not one.revoked), reverse=True)[: rule.keep]
        assert sum(one.digest in stay for one in images if not one.revoked) >= len(sound)
        assert stay <= set(kept(images, web=Rule(rule.keep + 1, rule.keep_for)))
    if rule.keep_for is not None:
        assert stay <= set(kept(images, web=Rule(rule.keep, rule.keep_for + DAY)))
