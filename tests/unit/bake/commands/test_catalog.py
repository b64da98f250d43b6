"""What the operator is shown of an image."""

from __future__ import annotations

from contextlib import closing

import pytest

from saltext.immutable.bake.commands import catalog
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store

DIGEST = "3f2a9c1d04be" + "0" * 52
GUARD = {"allow": ["service.enable"], "deny": ["ps.*"], "dry_runs": True}


@pytest.fixture
def shown(tmp_path):
    """What ``image.show`` returns of an image whose bake reported this."""
    settings = Settings(root=tmp_path, store=f"sqlite:///{tmp_path}/store.sqlite")

    def show(**report):
        with closing(Store.open(settings.store)) as store:
            store.add_image(Image(DIGEST, "web", ("a" * 64,), 1700000000.0, True, report))
        return catalog.show(settings, "web@3f2a9c1d04be")

    return show


def test_an_image_shows_its_policy(shown):
    found = shown(seconds=3.5, policy={"guard": GUARD, "writable": ["/srv"]})
    assert found["name"] == "web@3f2a9c1d04be"
    assert found["policy"] == {"guard": GUARD, "writable": ["/srv"]}
    assert found["report"] == {"seconds": 3.5}


def test_an_image_that_is_open_to_anything_shows_it(shown):
    found = shown(policy={"guard": {**GUARD, "allow": ["service.enable", "cmd.run*"]}})
    assert found["policy"]["dangerous"] == ["cmd.run*"]


def test_an_image_of_the_time_before_has_no_policy(shown):
    assert shown(seconds=3.5)["policy"] == {}
