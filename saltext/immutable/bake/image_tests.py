"""The tests of images, as the master sees them: ordered, judged, kept with the image, written as JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.host import tail
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
