"""The same rollouts with their books on PostgreSQL, as several masters would keep them."""

from __future__ import annotations

import pytest

from saltext.immutable.store import Store
from tests.support.postgresql import postgresql

from . import estates, lives
from .storytelling import stories

SEEDS = range(10)
STORIES = stories()[::4]


@pytest.fixture(scope="module")
def books():
    with postgresql() as url:
        store = Store.open(url)
        yield store
        store.close()


@pytest.fixture(autouse=True)
def instead(books, monkeypatch):
    monkeypatch.setattr(estates, "_stores", [books])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_is_the_same_one(seed, books, monkeypatch):
    there = lives.one(seed)
    monkeypatch.setattr(estates, "_stores", [])
    assert lives.one(seed) == there


@pytest.mark.parametrize("story", [pytest.param(story, id=story.path.stem) for story in STORIES])
def test_a_story_is_the_same_one(story):
    assert "\n".join(story.tell().lines) + "\n" == story.journal
