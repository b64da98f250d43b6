"""What went into an image, kept for comparing it with another one: packages, state files, pillar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import sqlalchemy as sa

from saltext.immutable.images.manifest import digest
from saltext.immutable.spec.model import Recipe
from saltext.immutable.store import Store
from saltext.immutable.store.schema import contents

_NOT_MADE_FROM = ("source", "name", "keep", "keep_for", "tests")
_SHORT = 12
"""Digits of a hash that are enough to tell that two differ."""


def of_states(recipe: Recipe, made_from: Mapping[str, Any], sls: Sequence[str] | None) -> dict[str, Any]:
    """Return what a recipe's layer of states was made from: hashes of each SLS that was applied and of the files
    that it used from the same folders, and one each of the pillar, the grains and all that it used of the tree.

    ``sls``: the names that were applied; None: it was not written down when the layer was built.
    """
    # What was asked for and is not there counts for the key, and is nothing that the layer was made from.
    served = {path: told for env in _environments(recipe, made_from) for path, told in env.items() if told}
    applied = {name: _place(name, served) for name in sls or ()}
    folders = {str(PurePosixPath(path).parent) for path in applied.values() if path}
    return {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in _NOT_MADE_FROM},
        "sls": None if sls is None else {name: _short(served.get(path, "")) for name, path in sorted(applied.items())},
        "files": {path: _short(told) for path, told in served.items() if _beside(path, folders)},
        "tree": digest({what: made_from.get(what) for what in ("files", "lists")})[:_SHORT],
        **{name: str(made_from.get(name, ""))[:_SHORT] for name in ("pillar", "tops")},
    }


def _environments(recipe: Recipe, made_from: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Yield what each environment serves, the recipe's own last: where two have a file, its counts."""
    files = made_from["files"]
    yield from (files[env] for env in sorted(files, key=lambda env: (env == recipe.saltenv, env)))


def _place(name: str, served: Mapping[str, str]) -> str:
    """Return the file of an SLS, '' where it is no file that the master serves."""
    path = name.replace(".", "/")
    return next((found for found in (f"{path}.sls", f"{path}/init.sls") if found in served), "")


def _beside(path: str, folders: set[str]) -> bool:
    """Tell whether a file lies in one of the folders or below; of the root's own only what lies right there."""
    parents = list(map(str, PurePosixPath(path).parents))
    return not path.endswith(".sls") and (parents[0] in folders or bool(folders - {"."} & set(parents)))


def _short(told: str) -> str:
    return told.rpartition(" ")[2][:_SHORT]


def keep(store: Store, image: str, made_from: Mapping[str, Any]) -> None:
    """Write down what went into an image, in place of what a bake before said of the same image."""
    with store.write() as tx:
        tx.execute(sa.delete(contents).where(contents.c.digest == image))
        tx.execute(sa.insert(contents).values(digest=image, made_from=dict(made_from)))


def find(store: Store, image: str) -> dict[str, Any] | None:
    """Return what went into an image; None: it was baked before this was written down."""
    with store.read() as connection:
        found = connection.execute(sa.select(contents.c.made_from).where(contents.c.digest == image)).scalar()
    return None if found is None else dict(found)
