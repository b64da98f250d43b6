"""The tests of images, as the master sees them: ordered, judged, kept with the image, written as JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.builder.image_tests.saltcheck import SKIPPED
from saltext.immutable.host import tail, write
from saltext.immutable.images.manifest import digest
from saltext.immutable.spec.model import ImageTest, Recipe
from saltext.immutable.spec.tests import plain
from saltext.immutable.store import Store
from saltext.immutable.store.schema import tests

_SHOWN = 10
"""Lines of a message that an error shows."""
_FILES = ("saltcheck-tests/", ".tst")

Result = Mapping[str, Any]
"""``name``, ``phase``, ``recipe``, ``passed``, ``seconds``, ``message``."""


def order(recipe: Recipe, wanted: Sequence[ImageTest]) -> dict[str, Any]:
    """Return the order to run tests of a recipe, as `saltcheck` takes it."""
    states = recipe.states if isinstance(recipe.states, str) else list(recipe.states)
    envs = {"saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
    plainly = json.loads(json.dumps(plain(wanted), default=str))  # YAML knows dates
    return {"recipe": recipe.name, "tests": plainly, "states": states, **envs}


def are_files(recipe: Recipe) -> bool:
    """Tell whether files of the tree say what the booted tests of a recipe are."""
    return any(test.sls is not None for test in recipe.tests.booted)


def files(served: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the files of saltcheck that a master serves, with their hashes."""
    found = {f"{env}:{path}": paths[path] for env, paths in served.items() for path in paths if _is_test(path)}
    return dict(sorted(found.items()))


def _is_test(path: str) -> bool:
    return _FILES[0] in path or path.endswith(_FILES[1])


def key(*made_from: Any) -> str:
    """Return what tells that the same tests would be run on the same image."""
    return digest(made_from)


def failed(results: Sequence[Result]) -> list[Result]:
    """Return those that did not pass."""
    return [each for each in results if not each["passed"]]


def sentence(results: Sequence[Result]) -> str:
    """Return what is said of tests that failed: how many, and each with what it says."""
    wrong = failed(results)
    said = "\n".join(f"  {each['name']}: {tail(each['message'], _SHOWN)}" for each in wrong)
    phase = wrong[0]["phase"]
    return f"{len(wrong)} of {sum(each['phase'] == phase for each in results)} {phase} tests failed:\n{said}"


def reason(results: Sequence[Result]) -> str:
    """Return in one line which tests failed."""
    return f"failed its tests: {', '.join(each['name'] for each in failed(results))}"


def require(image: str, results: Sequence[Result]) -> None:
    """Raise where an image failed its tests."""
    if failed(results):
        raise CommandExecutionError(
            f"{image} is kept for inspection and is never rolled: {sentence(results)}\n"
            f"(salt-run image.tests {image}; a bake of the same inputs tests it again)"
        )


def require_inside(store: Store, recipe: str, results: Sequence[Result]) -> None:
    """Raise where the tests inside the bake of a recipe failed, and keep what they said: there is no image."""
    if failed(results):
        keep(store, recipe, None, results)
        raise CommandExecutionError(
            f"{recipe} was not baked: {sentence(results)}\n(salt-run image.tests {recipe} shows all)"
        )


# What is kept


def keep(store: Store, recipe: str, image: str | None, results: Sequence[Result], by: str = "") -> None:
    """Write down what came of the tests of an image, or of a bake that gave none, in place of what was known."""
    wrong = failed(results)
    known = {"recipe": recipe, "digest": image, "at": store.clock(), "results": list(map(dict, results)), "key": by}
    same = tests.c.digest.is_(None) if image is None else sa.or_(tests.c.digest == image, tests.c.digest.is_(None))
    with store.write() as tx:
        tx.execute(sa.delete(tests).where(tests.c.recipe == recipe, same))
        tx.execute(sa.insert(tests).values(**known, failed=reason(results) if wrong else None))


def of_image(store: Store, image: str) -> list[dict[str, Any]] | None:
    """Return what came of the tests of an image; None: it was baked before that was written down."""
    return _results(store, tests.c.digest == image)


def passed(store: Store, image: str, by: str) -> list[dict[str, Any]] | None:
    """Return the results of exactly these tests if the image has passed them."""
    return _results(store, tests.c.digest == image, tests.c.key == by, tests.c.failed.is_(None))


def of_recipe(store: Store, recipe: str, since: float = 0.0) -> list[dict[str, Any]] | None:
    """Return what came of the tests of the last bake of a recipe, whether it gave an image or not."""
    return _results(store, tests.c.recipe == recipe, tests.c.at >= since)


def _results(store: Store, *where: Any) -> list[dict[str, Any]] | None:
    query = sa.select(tests.c.results).where(*where).order_by(tests.c.at.desc(), tests.c.id.desc()).limit(1)
    with store.read() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else [dict(each) for each in found]


def find(store: Store, ref: str) -> dict[str, Any]:
    """Return the tests of an image, or of the last bake of the recipe that is named alone."""
    if "@" in ref or ":" in ref or (found := of_recipe(store, ref)) is None:
        image = store.image(ref)
        return {"name": image.name, **told(of_image(store, image.digest) or [])}
    return {"name": ref, **told(found)}


def told(results: Sequence[Result]) -> dict[str, Any]:
    """Return results with how many passed."""
    wrong = len(failed(results))
    return {"passed": len(results) - wrong, "failed": wrong, "results": list(results)}


# JUnit


@contextmanager
def reported(opts: Mapping[str, Any], recipe: object, path: str | None) -> Iterator[None]:
    """Write what came of the tests of a bake, where a path is given; also if it fails, which is a result as well."""
    if path is None:
        yield
        return
    _require_place(path)
    if not isinstance(recipe, str) or "," in recipe:
        raise SaltInvocationError("junit: a report is of one recipe; bake one at a time, or ask image.tests afterwards")
    with closing(Store.open(spec.settings(opts).store)) as store:
        began = store.clock()
        try:
            yield
        except Exception as err:
            found = of_recipe(store, recipe, began)
            write_junit(path, recipe, found or [], None if found else str(err))
            raise
        write_junit(path, recipe, of_recipe(store, recipe) or [])


def _require_place(path: str) -> None:
    place = Path(path)
    if not place.is_absolute() or not place.parent.is_dir():
        raise SaltInvocationError(f"junit: {path!r} is no file in a folder of this host; write an absolute path")


def write_junit(path: str, name: str, results: Sequence[Result], error: str | None = None) -> None:
    """Write results as JUnit XML, a suite a phase; ``error``: why there is nothing more to say."""
    _require_place(path)
    try:
        write(Path(path), junit(name, results, error))
    except OSError as err:
        raise CommandExecutionError(f"junit: {path} cannot be written: {err}") from err


def junit(name: str, results: Sequence[Result], error: str | None = None) -> str:
    """Return results as JUnit XML."""
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
    """Return a text without what XML cannot hold: the colours of a terminal, for one."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
