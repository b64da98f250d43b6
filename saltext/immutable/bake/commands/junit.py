"""The results of an image's tests as JUnit XML, for whatever shows the tests of a build."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import host, spec
from saltext.immutable.bake.image_tests import Result, of_recipe
from saltext.immutable.builder.image_tests.saltcheck import SKIPPED
from saltext.immutable.store import Store


@contextmanager
def reported(opts: Mapping[str, Any], recipe: object, path: str | None) -> Iterator[None]:
    """Write the results of a bake's tests to ``path`` when the block has ended; None: write nothing.

    A bake that fails is written as well: with its results, or with its error. Raises SaltInvocationError, before the
    block, for a path that could not be written or more than one recipe.
    """
    if path is None:
        yield
        return
    _require_place(path)
    if not isinstance(recipe, str) or "," in recipe:
        raise SaltInvocationError("junit: a file holds the tests of one recipe; bake one, or use image.tests")
    with closing(Store.open(spec.settings(opts).store)) as store:
        began = store.clock()
        try:
            yield
        except Exception as err:
            found = of_recipe(store, recipe, began)
            write(path, recipe, found or [], None if found else str(err))
            raise
        write(path, recipe, of_recipe(store, recipe) or [])


def _require_place(path: str) -> None:
    place = Path(path)
    if not place.is_absolute() or not place.parent.is_dir():
        raise SaltInvocationError(f"junit: {path!r} is no file in a folder of this host; write an absolute path")


def write(path: str, name: str, results: Sequence[Result], error: str | None = None) -> None:
    """Write results to a file as JUnit XML, see `xml`. Raises CommandExecutionError where it cannot be written."""
    _require_place(path)
    try:
        host.write(Path(path), xml(name, results, error))
    except OSError as err:
        raise CommandExecutionError(f"junit: {path} cannot be written: {err}") from err


def xml(name: str, results: Sequence[Result], error: str | None = None) -> str:
    """Return results as JUnit XML, a suite for each phase; ``error``: why the bake has no results."""
    junitparser: Any = import_module("junitparser")  # only this needs it
    document = junitparser.JUnitXml(name)
    for phase in dict.fromkeys(each["phase"] for each in results):
        suite = junitparser.TestSuite(f"{name} {phase}")
        for each in results:
            if each["phase"] == phase:
                suite.add_testcase(_case(junitparser, name, each))
        document.add_testsuite(suite)
    if error:
        suite = junitparser.TestSuite(f"{name} bake")
        case = junitparser.TestCase("bake", classname=name)
        case.result = [junitparser.Error(_printable(error))]
        suite.add_testcase(case)
        document.add_testsuite(suite)
    document.update_statistics()
    return str(document.tostring().decode())


def _case(junitparser: Any, name: str, each: Result) -> Any:
    case = junitparser.TestCase(_printable(each["name"]), classname=f"{each.get('recipe', name)}.{each['phase']}")
    case.time = each["seconds"]
    if not each["passed"]:
        case.result = [junitparser.Failure(_printable(each["message"]))]
    elif each["message"] == SKIPPED:
        case.result = [junitparser.Skipped()]
    return case


def _printable(text: str) -> str:
    """Return a text without the characters that XML cannot hold, for example the colours of a terminal."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
