"""Read ``tests`` of a recipe: ``tests: {inside: [...], booted: [...], vm: [...], idempotent: true}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import NOTED, ImageTest, RecipeTests
from saltext.immutable.spec.section import Section
from saltext.immutable.text import quoted, shortened

# Assertions of SaltCheck in salt.modules.saltcheck: those that compare with an expected value, and those that do not.
_COMPARING = ("Equal", "NotEqual", "In", "NotIn", "Greater", "GreaterEqual", "Less", "LessEqual")
_UNARY = ("True", "False", "Empty", "NotEmpty")
ASSERTIONS = tuple(f"assert{word}" for word in (*_COMPARING, *_UNARY))
_NEEDS_EXPECTED = frozenset(f"assert{word}" for word in _COMPARING)
_LONGEST_NAME = 200
_EXPECTED = ("expected_return", "expected-return", "expected")


def tests(read: Section, states: object) -> RecipeTests:
    """Read the tests of a recipe; ``states``: the states that it applies."""
    idempotent = read.take("idempotent", _idempotent, RecipeTests.idempotent)
    phases = {phase: _phase(read, phase) for phase in ("inside", "booted", "vm")}
    found = RecipeTests(**phases, idempotent=idempotent)
    if idempotent and not states:
        read.problem("idempotent", "it applies the recipe's states again, but it has none; take the key out")
    if found.inside and not states:
        read.problem("inside", "these tests run after the recipe's states, but it has none; write them below booted")
    for phase in ("booted", "vm"):
        if not states and any(test.sls == "" for test in phases[phase]):
            read.problem(phase, "saltcheck: true means the recipe's states, but it has none; write saltcheck: SLS")
    read.close()
    return found


def _idempotent(value: object) -> bool | Literal["noted"]:
    return NOTED if value == NOTED else reading.flag(value)


def _phase(read: Section, phase: str) -> tuple[ImageTest, ...]:
    found = tuple(_entry(entry) for entry in read.each(phase))
    names = [test.name for test in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        read.problem(phase, f"two tests are called {quoted(twice)}; give one of them another name")
    return found


def _entry(read: Section) -> ImageTest:
    """Read one test: ``{saltcheck: true}``, ``{saltcheck: SLS}``, or a test as in a file of saltcheck."""
    if read.has("saltcheck"):
        sls = read.take("saltcheck", _sls, "")
        found = ImageTest(f"saltcheck {sls}".strip(), sls=sls)
    else:
        found = _check(read)
    read.close()
    return found


def _sls(value: object) -> str:
    """Return an SLS; '' stands for each SLS of the recipe."""
    if value is True:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"must be true or the name of an SLS, not {reading.described(value)}; write true")
    return reading.sls(value)


def _check(read: Section) -> ImageTest:
    fun = read.need("module_and_function", _function, "service.status") or ""
    check: dict[str, Any] = {"module_and_function": fun}
    args: Sequence[Any] = read.take("args", reading.data_list, ())
    check |= {"args": list(args)} if args else {}
    for word in ("kwargs", "pillar_data"):
        check |= {word: read.take(word, reading.data_mapping, None)} if read.has(word) else {}
    check |= {"print_result": read.take("print_result", reading.flag, True)}
    if read.has("assertions"):
        check["assertions"] = [_closed(section) for section in read.each("assertions")]
        if not check["assertions"] and read.valid:
            read.problem("assertions", "the list is empty: a test needs an assertion; write assertion: assertTrue")
    elif fun != "saltcheck.state_apply":  # this function itself asserts that something was applied
        check |= _assertion(read)
    default = shortened(" ".join(map(str, (fun, *args))), _LONGEST_NAME)
    return ImageTest(read.take("name", reading.text, default), check=check)


def _closed(read: Section) -> dict[str, Any]:
    found = _assertion(read)
    read.close()
    return found


def _assertion(read: Section) -> dict[str, Any]:
    assertion = read.need("assertion", _known, "assertTrue")
    found: dict[str, Any] = {"assertion": assertion}
    for word in ("assertion_section", "assertion_section_delimiter"):
        if read.has(word):
            found[word] = read.take(word, reading.text, "")
    given = [read.take(word, reading.data, None) for word in _EXPECTED if read.has(word)]
    if assertion in _NEEDS_EXPECTED and given in ([], [None]):
        read.problem("", f"{assertion} needs a value to compare with; write expected: ...")
    if len(given) > 1:
        read.problem("", "the expected value is given twice; write expected only")
    return found | ({"expected_return": given[0]} if given else {})


def _function(value: object) -> str:
    found = reading.text(value)
    if len(found.split(".")) != 2 or not all(part.isidentifier() for part in found.split(".")):
        raise ValueError(f"{quoted(found)} is not a function; write service.status")
    return found


def _known(value: object) -> str:
    found = reading.text(value)
    if found not in ASSERTIONS:
        raise ValueError(f"saltcheck has no {quoted(found)}; {reading.nearest(found, ASSERTIONS)}")
    return found


def plain(found: Sequence[ImageTest]) -> list[Mapping[str, Any]]:
    """Return tests as data for JSON."""
    return [{"name": test.name, "sls": test.sls, "check": dict(test.check)} for test in found]
