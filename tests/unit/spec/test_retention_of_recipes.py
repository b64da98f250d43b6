"""How long a recipe's images are kept, and what a fleet does about a revoked one."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions

FLEET = {"recipe": "web", "size": 3, "minion_id": "web-{token}", "provider": {"name": "nspawn"}}


def read(fleet=None, **recipe):
    recipes = {"web": {"from": {"debian": "bookworm"}, **recipe}}
    return definitions({"immutable": {"recipes": recipes, "fleets": {"web": {**FLEET, **(fleet or {})}}}})


def test_a_recipe_keeps_a_number_a_time_or_all():
    found = read(keep=5, keep_for="90d").recipes["web"]
    assert (found.keep, found.keep_for) == (5, 90 * 86400.0)
    found = read().recipes["web"]
    assert (found.keep, found.keep_for) == (None, None)


@pytest.mark.parametrize(
    ("recipe", "error"),
    [
        ({"keep": 0}, "keep: must be 1 or more; leave it out to keep every image, or write keep_for: 90d"),
        ({"keep": -1}, "keep: must be 0 or more, not -1"),
        ({"keep": "5"}, "keep: must be a whole number, not str '5'; write it without quotes"),
        ({"keep": True}, "keep: must be a whole number, not bool True; write it without quotes"),
        ({"keep_for": "3 months"}, "keep_for: must be a duration, not str '3 months'; write 90s, 10m, 1h30m or 30d"),
        ({"keep_for": 0}, "keep_for: must be more than 0 and finite, not 0"),
        ({"keeps": 5}, "keeps: no such key; did you mean 'keep'?"),
    ],
)
def test_wrong_retention_is_refused(recipe, error):
    with pytest.raises(SaltInvocationError) as err:
        read(**recipe)
    assert str(err.value) == f"immutable:recipes:web:{error}"


def test_a_fleet_stays_on_a_revoked_image_unless_it_says_otherwise():
    assert read().fleets["web"].revoked == "keep"
    assert read({"revoked": "replace"}).fleets["web"].revoked == "replace"
    with pytest.raises(SaltInvocationError, match="fleets:web:revoked: must be keep or replace, not bool True"):
        read({"revoked": True})
