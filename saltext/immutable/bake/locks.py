"""Bakes and what deletes images take turns: a layer that a bake has found must stay until its image needs it.

Whoever begins raises its own flag first and looks for the other's then, so that never both go on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from salt.exceptions import CommandExecutionError

from saltext.immutable.store import Store

LEASE = 4 * 3600.0
"""Seconds after which who bakes or deletes on another master counts as dead; on this one it does so at once."""
_BAKING = "baking "
_DELETING = "deleting images"


@contextmanager
def baking(store: Store, recipe: str, say: Callable[..., None]) -> Iterator[None]:
    """Keep every layer while the block runs; wait for who is deleting."""
    name = f"{_BAKING}{recipe} {secrets.token_hex(4)}"  # any number may bake at once
    try:
        with store.lease(name, LEASE):
            _wait(store, recipe, say)
            yield
    finally:
        store.forget_lease(name)


def _wait(store: Store, recipe: str, say: Callable[..., None]) -> None:
    told = False
    while holder := store.holder(_DELETING):
        if not told:
            say(f"waiting: {holder} deletes images", "image/waiting", recipe=recipe)
        told = True
        time.sleep(1)


@contextmanager
def deleting(store: Store) -> Iterator[None]:
    """Let no bake begin while the block runs; raise where one is under way."""
    with store.lease(_DELETING, LEASE):
        for name in store.taken(_BAKING):
            if holder := store.holder(name):
                recipe = name.removeprefix(_BAKING).partition(" ")[0]
                raise CommandExecutionError(
                    f"{holder} bakes {recipe}, and no image is deleted meanwhile; do it again when that has ended"
                )
            store.forget_lease(name)  # that bake was killed
        yield
