"""What operators, reactors, other programs and third parties rely on changes only where that is meant."""

from __future__ import annotations

import pytest

from tests.support.surface import PARTS, seen
from tests.support.surface.files import WRITE, difference
from tests.support.surface.shapes import merged, shape_of


@pytest.mark.parametrize("part", PARTS)
def test_the_public_surface_is_as_written_down(part):
    if found := difference(part, PARTS[part]()):
        pytest.fail(f"the public surface has changed; if that is meant, write it down: {WRITE}\n{found}", pytrace=False)


def test_of_every_function_it_is_written_down_what_it_answers():
    unknown = [name for name, shape in seen.answers()["answers"].items() if shape is None]
    assert not unknown, "run a test that calls it with IMMUTABLE_SURFACE=write"


STATUS = {"fleet": "str", "size": "int", "image": "str | null", "machines": ["machine"], "note?": "str"}
STATUS |= {"tainted": {"<machine>": ["str"]}}
MACHINE = {"phase": "str", "since": "float"}
SEEN = {"fleet": "web", "size": 3, "image": None, "machines": [{"phase": "serving", "since": 1.5}], "tainted": {}}


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        pytest.param({}, True, id="as written down"),
        pytest.param({"image": "web@3f2a"}, True, id="the other of two types"),
        pytest.param({"note": "of no use"}, True, id="what may be absent is there"),
        pytest.param({"machines": []}, True, id="an empty list"),
        pytest.param({"tainted": {"web-1.example.com": ["drift"]}}, True, id="a key that is data"),
        pytest.param({"size": 3.0}, False, id="another type"),
        pytest.param({"size": None}, False, id="null"),
        pytest.param({"address": "10.0.0.1"}, False, id="a new key"),
        pytest.param({"machines": [{"phase": "serving"}]}, False, id="a key that is missing further down"),
        pytest.param({"machines": [{**MACHINE, "since": 1.5, "age": 1}]}, False, id="a new key further down"),
        pytest.param({"tainted": {"web-1.example.com": "drift"}}, False, id="another type below a key that is data"),
    ],
)
def test_what_fits_a_shape_leaves_it_as_it_is(changes, fits):
    named = {"machine": dict(MACHINE)}
    found = merged(STATUS, shape_of({**SEEN, **changes}), named)
    assert ((found, named) == (STATUS, {"machine": MACHINE})) == fits


RELAUNCHED = {"at_a_time": 1, "fleet": "web", "order": [], "warnings": []}


def test_an_answer_that_does_not_fit_is_shown_as_a_difference(monkeypatch):
    monkeypatch.setattr(seen, "WRITE", False)
    onlooker = seen.Onlooker()
    onlooker.answer("fleet.relaunch_phase", ["web"], {}, {**RELAUNCHED, "result": True})
    onlooker.end()
    onlooker.answer("fleet.relaunch_phase", ["web"], {}, {**RELAUNCHED, "took": 2.5})
    with pytest.raises(pytest.fail.Exception, match=r"changed: fleet.relaunch_phase(.|\n)*\+.*took\?.?: float"):
        onlooker.end()
