"""What an image was made from, kept for comparing it with another one: packages, state files, pillar."""

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
"""Hexadecimal digits of a hash that are kept: enough to tell that two differ."""


def of_states(recipe: Recipe, made_from: Mapping[str, Any], sls: Sequence[str] | None) -> dict[str, Any]:
    """Return what a recipe's layer of states was made from, as hashes.

    That is: the recipe; each SLS that was applied; the files that it used from the same folders; and one hash each of
    the pillar, the external tops and all that was used of the tree. ``made_from``: the inputs of the layer's key.
    ``sls``: the names of the states that were applied; None if that was not known when the layer was built.
    """
    # A file that was asked for and is not there counts for the key, but the layer was not made from it.
    served = {path: hashed for env in _environments(recipe, made_from) for path, hashed in env.items() if hashed}
    applied = {name: _place(name, served) for name in sls or ()}
    folders = {str(PurePosixPath(path).parent) for path in applied.values() if path}
    return {
        "recipe": {name: value for name, value in asdict(recipe).items() if name not in _NOT_MADE_FROM},
        "sls": None if sls is None else {name: _short(served.get(path, "")) for name, path in sorted(applied.items())},
        "files": {path: _short(hashed) for path, hashed in served.items() if _beside(path, folders)},
        "tree": digest({what: made_from.get(what) for what in ("files", "lists")})[:_SHORT],
        **{name: str(made_from.get(name, ""))[:_SHORT] for name in ("pillar", "tops")},
    }


def _environments(recipe: Recipe, made_from: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Yield the files of each environment, those of the recipe's own last: where two have a file, its own counts."""
    files = made_from["files"]
    yield from (files[env] for env in sorted(files, key=lambda env: (env == recipe.saltenv, env)))


def _place(name: str, served: Mapping[str, str]) -> str:
    """Return the file of an SLS; '' if the master serves none."""
    path = name.replace(".", "/")
    return next((found for found in (f"{path}.sls", f"{path}/init.sls") if found in served), "")


def _beside(path: str, folders: set[str]) -> bool:
    """Tell whether a file lies in one of the folders or below; for the root folder, only right in it."""
    parents = list(map(str, PurePosixPath(path).parents))
    return not path.endswith(".sls") and (parents[0] in folders or bool(folders - {"."} & set(parents)))


def _short(hashed: str) -> str:
    """Return the first digits of a hash, without the mode before it."""
    return hashed.rpartition(" ")[2][:_SHORT]


def keep(store: Store, image: str, made_from: Mapping[str, Any]) -> None:
    """Keep what an image was made from, in place of what an earlier bake of the same image kept."""
    with store.write() as tx:
        tx.execute(sa.delete(contents).where(contents.c.digest == image))
        tx.execute(sa.insert(contents).values(digest=image, made_from=dict(made_from)))


def find(store: Store, image: str) -> dict[str, Any] | None:
    """Return what an image was made from; None if it was baked before the store kept it."""
    with store.read() as connection:
        found = connection.execute(sa.select(contents.c.made_from).where(contents.c.digest == image)).scalar()
    return None if found is None else dict(found)
