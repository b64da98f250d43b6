"""Tests of images, as the master sees them: what is ordered, whether it passed, and what the store keeps of it."""

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
"""Lines of a test's message that an error shows, the last ones."""
_FILES = ("saltcheck-tests/", ".tst")

Result = Mapping[str, Any]
"""What one test gave: name, phase (inside, booted or vm), recipe, passed, seconds, message."""


def order(recipe: Recipe, wanted: Sequence[ImageTest]) -> dict[str, Any]:
    """Return the part of a builder's order that says which tests of a recipe to run."""
    states = recipe.states if isinstance(recipe.states, str) else list(recipe.states)
    envs = {"saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
    as_json = json.loads(json.dumps(plain(wanted), default=str))  # YAML has dates, JSON has none
    return {"recipe": recipe.name, "tests": as_json, "states": states, **envs}


def are_files(recipe: Recipe) -> bool:
    """Tell whether any test of a recipe's image is in files of the state tree."""
    return any(test.sls is not None for test in recipe.tests.of_image)


def files(served: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the test files of saltcheck in the tree that a master serves, with their hashes."""
    found = {f"{env}:{path}": paths[path] for env, paths in served.items() for path in paths if _is_test(path)}
    return dict(sorted(found.items()))


def _is_test(path: str) -> bool:
    return _FILES[0] in path or path.endswith(_FILES[1])


def key(*made_from: Any) -> str:
    """Return a hash of what tests are made from: the same hash means the same tests."""
    return digest(made_from)


def failed(results: Sequence[Result]) -> list[Result]:
    """Return the results of tests that did not pass."""
    return [each for each in results if not each["passed"]]


def failure(results: Sequence[Result]) -> str:
    """Return the message about tests that failed: how many, and the message of each."""
    wrong = failed(results)
    messages = "\n".join(f"  {each['name']}: {tail(each['message'], _SHOWN)}" for each in wrong)
    phase = wrong[0]["phase"]
    return f"{len(wrong)} of {sum(each['phase'] == phase for each in results)} {phase} tests failed:\n{messages}"


def reason(results: Sequence[Result]) -> str:
    """Return the names of the tests that failed, in one line."""
    return f"failed its tests: {', '.join(each['name'] for each in failed(results))}"


def require(image: str, results: Sequence[Result]) -> None:
    """Raise CommandExecutionError where an image failed its tests."""
    if failed(results):
        raise CommandExecutionError(
            f"{image} is kept for inspection and is never rolled: {failure(results)}\n"
            f"(salt-run image.tests {image}; a bake of the same inputs tests it again)"
        )


def require_inside(store: Store, recipe: str, results: Sequence[Result]) -> None:
    """Raise CommandExecutionError where a test inside the bake failed; the store keeps the results for `find`."""
    if failed(results):
        keep(store, recipe, None, results)
        raise CommandExecutionError(
            f"{recipe} was not baked: {failure(results)}\n(salt-run image.tests {recipe} shows all)"
        )


# What is kept


def keep(store: Store, recipe: str, image: str | None, results: Sequence[Result], by: str = "") -> None:
    """Keep the results of an image, or of a bake that made none (``image`` None), in place of those before.

    ``by``: the `key` of the tests.
    """
    wrong = failed(results)
    known = {"recipe": recipe, "digest": image, "at": store.clock(), "results": list(map(dict, results)), "key": by}
    same = tests.c.digest.is_(None) if image is None else sa.or_(tests.c.digest == image, tests.c.digest.is_(None))
    with store.write() as tx:
        tx.execute(sa.delete(tests).where(tests.c.recipe == recipe, same))
        tx.execute(sa.insert(tests).values(**known, failed=reason(results) if wrong else None))


def of_image(store: Store, image: str) -> list[dict[str, Any]] | None:
    """Return the results of an image; None if it was baked before the store kept them."""
    return _results(store, tests.c.digest == image)


def passed(store: Store, image: str, by: str) -> list[dict[str, Any]] | None:
    """Return the results of the tests whose `key` is ``by``; None if the image has not passed them."""
    return _results(store, tests.c.digest == image, tests.c.key == by, tests.c.failed.is_(None))


def of_recipe(store: Store, recipe: str, since: float = 0.0) -> list[dict[str, Any]] | None:
    """Return the results of a recipe's last bake (since a time, s), whether it made an image or not; None: no bake."""
    return _results(store, tests.c.recipe == recipe, tests.c.at >= since)


def _results(store: Store, *where: Any) -> list[dict[str, Any]] | None:
    query = sa.select(tests.c.results).where(*where).order_by(tests.c.at.desc(), tests.c.id.desc()).limit(1)
    with store.read() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else [dict(each) for each in found]


def find(store: Store, ref: str) -> dict[str, Any]:
    """Return the results of an image, or of the last bake where ``ref`` is the name of a recipe."""
    if "@" in ref or ":" in ref or (found := of_recipe(store, ref)) is None:
        image = store.image(ref)
        return {"name": image.name, **summary(of_image(store, image.digest) or [])}
    return {"name": ref, **summary(found)}


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return results, with how many passed and how many failed."""
    wrong = len(failed(results))
    return {"passed": len(results) - wrong, "failed": wrong, "results": list(results)}
