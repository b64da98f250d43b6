"""The key ``slim`` of a recipe."""

from __future__ import annotations

import pytest

from saltext.immutable.spec.model import Definitions, Minion, Recipe, Slim
from saltext.immutable.spec.origins import Debian, Parent
from saltext.immutable.spec.section import Section
from saltext.immutable.spec.slim import slim


def read(given: dict) -> tuple[object, list[str]]:
    problems: list[str] = []
    return slim(Section("immutable:recipes:web", given, problems)), problems


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param({}, None, id="not there"),
        pytest.param({"slim": True}, Slim(), id="true"),
        pytest.param({"slim": False}, False, id="false"),
        pytest.param({"slim": {"docs": "keep"}}, Slim(docs="keep"), id="one part"),
        pytest.param({"slim": {"locales": ["en", "pt_BR"]}}, Slim(locales=("en", "pt_BR")), id="languages"),
        pytest.param(
            {"slim": {"locales": "keep", "bytecode": "drop"}}, Slim(locales="keep", bytecode="drop"), id="two"
        ),
    ],
)
def test_slim_is_read(given, found):
    assert read(given) == (found, [])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param("yes", "slim: must be true, false or a mapping, not str 'yes'; write true, false", id="text"),
        pytest.param({"doc": "keep"}, "slim:doc: no such key; did you mean 'docs'?", id="unknown part"),
        pytest.param({"man": True}, "slim:man: must be keep or drop, not bool True", id="flag for a word"),
        pytest.param(
            {"locales": "de"}, "slim:locales: must be keep or a list of languages, not 'de'; write [de]", id="one"
        ),
        pytest.param(
            {"locales": ["../x"]}, "slim:locales: '../x' is not a language; write en, de or pt_BR", id="a path"
        ),
    ],
)
def test_an_error_names_the_path(given, sentence):
    _, problems = read({"slim": given})
    assert [problem for problem in problems if sentence in problem], problems


def test_a_recipe_slims_as_its_parent_unless_it_says_otherwise():
    base = Recipe("base", Debian("bookworm"), "base-bake", Minion())
    web, shop = Recipe("web", Parent("base"), "web-bake", slim=False), Recipe("shop", Parent("web"), "shop-bake")
    known = Definitions({"base": base, "web": web, "shop": shop}, {})
    assert [recipe.slim for recipe in known.chain("shop")] == [None, False, False]
