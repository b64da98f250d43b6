"""What an argument of a function that Salt calls may be, and what is said of a wrong one."""

from __future__ import annotations

import inspect
import types
from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable import arguments

MODULE = """
from __future__ import annotations
from os.path import join
from typing import Annotated
from saltext.immutable.spec import reading

def scale(size: Annotated[int, reading.count] | None = 1, to: bool | Annotated[str, reading.name] = False):
    return [size, to]

def roll(name: str, image: str | None = None, test: bool = False, wait: float = 1.0, size: int = 1):
    "Roll."
    return [name, image, test, wait, size]

def list_(names: str | list = "all", order: dict | None = None, any=None):
    return [names, order, any]

def open_(name: str, **kwargs):
    return [name, kwargs, jid]

def _private(name):
    return name
"""


@pytest.fixture
def module() -> dict[str, Any]:
    """A module of functions, as Salt loads one."""
    made = types.ModuleType("made")
    exec(MODULE, made.__dict__)
    made.__dict__.update({"__virtualname__": "fleet", "__func_alias__": {"list_": "list"}})
    arguments.check_all(made.__dict__, SaltInvocationError, {"name": lambda: ["shop", "web"]})
    return made.__dict__


@pytest.mark.parametrize(
    ("args", "kwargs", "returned"),
    [
        pytest.param(["web"], {}, ["web", None, False, 1.0, 1], id="defaults"),
        pytest.param([], {"name": "web", "image": "web:stable"}, ["web", "web:stable", False, 1.0, 1], id="by name"),
        pytest.param([7], {"image": 3.5}, ["7", "3.5", False, 1.0, 1], id="names that look like numbers"),
        pytest.param(["web"], {"wait": 2, "size": 3}, ["web", None, False, 2, 3], id="numbers"),
        pytest.param(["web"], {"__pub_jid": "1"}, ["web", None, False, 1.0, 1], id="what Salt adds"),
    ],
)
def test_right_calls(module, args, kwargs, returned):
    assert module["roll"](*args, **kwargs) == returned


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        pytest.param([], {}, "fleet.roll: name is missing; there are: shop, web", id="missing"),
        pytest.param(["a"], {"imge": "x"}, "fleet.roll: there is no argument imge; did you mean image?", id="near"),
        pytest.param(
            ["a"], {"quux": 1}, "fleet.roll: there is no argument quux; it takes name, image, test, wait", id="far"
        ),
        pytest.param(["a"], {"a\x1b[2J": 1}, "fleet.roll: there is no argument 'a\\x1b[2J'; it takes", id="printable"),
        pytest.param(list("abcdef"), {}, "fleet.roll: 'f' is one argument too many; it takes name", id="too many"),
        pytest.param(["a"], {"name": "b"}, "fleet.roll: name is given twice: 'a' and 'b'", id="twice"),
        pytest.param(["a"], {"test": 1}, "fleet.roll: test must be True or False, not 1", id="a number for a flag"),
        pytest.param([True], {}, "fleet.roll: name must be a text, not True", id="a flag for a text"),
        pytest.param([None], {}, "fleet.roll: name must be a text, not None", id="nothing for a text"),
        pytest.param([["a"]], {}, "fleet.roll: name must be a text, not ['a']", id="a list for a text"),
        pytest.param(["a"], {"size": 1.5}, "fleet.roll: size must be a whole number, not 1.5", id="a broken number"),
        pytest.param(["a"], {"size": True}, "fleet.roll: size must be a whole number, not True", id="a flag as number"),
    ],
)  # fmt: skip
def test_wrong_calls(module, args, kwargs, says):
    with pytest.raises(SaltInvocationError) as refused:
        module["roll"](*args, **kwargs)
    assert str(refused.value).startswith(says)


def test_several_types_and_no_type(module):
    assert module["list_"](["a"], {}, any={1}) == [["a"], {}, {1}]
    with pytest.raises(SaltInvocationError, match="fleet.list: names must be a text or a list, not {}"):
        module["list_"]({})
    with pytest.raises(SaltInvocationError, match="order must be a mapping, not 'x'"):
        module["list_"](order="x")


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        pytest.param({"size": -1}, "size: must be 0 or more, not -1", id="refused by its reader"),
        pytest.param({"size": "x"}, "size must be a whole number, not 'x'", id="not for its reader"),
        pytest.param({"to": "a b"}, "to: 'a b' is not a name; use small letters", id="one of two types"),
        pytest.param({"to": 2.5}, "to: '2.5' is not a name", id="read as a number"),
    ],
)
def test_what_a_reader_says_of_a_wrong_value(module, kwargs, says):
    with pytest.raises(SaltInvocationError) as refused:
        module["scale"](**kwargs)
    assert str(refused.value).startswith(f"fleet.scale: {says}")
    assert module["scale"](size=None, to=7) == [None, "7"]


def test_a_function_that_takes_any_word_gets_what_salt_adds_and_sees_the_globals_of_its_module(module):
    module["open_"].__globals__["jid"] = "20261130"
    assert module["open_"]("x", __pub_user="ada", more=1) == ["x", {"__pub_user": "ada", "more": 1}, "20261130"]


def test_salt_is_offered_the_functions_of_the_module_and_their_signatures(module):
    assert module["__load__"] == ["scale", "roll", "list_", "open_"]
    assert module["roll"].__doc__ == "Roll."
    assert list(inspect.signature(module["roll"]).parameters)[:2] == ["name", "image"]


def test_where_nothing_can_be_told_of_the_choices_the_arguments_are_named():
    made = {"__virtualname__": "fleet", "__name__": "made"}
    exec("def roll(name, test=False): pass", made)
    arguments.check_all(made, SaltInvocationError, {"name": lambda: 1 / 0})
    with pytest.raises(SaltInvocationError, match="name is missing; it takes name, test"):
        made["roll"]()
