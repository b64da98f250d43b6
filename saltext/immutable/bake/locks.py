"""Locks between bakes, and between bakes and what deletes images.

Two bakes never build the layers of one recipe at once. No image is deleted while anything is baked: a layer that a
bake has found must stay until its image needs it. Each side takes its own lease first and looks for the other's then,
so that never both go on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from salt.exceptions import CommandExecutionError

from saltext.immutable.store import Held, Store

LEASE = 4 * 3600.0
"""Seconds after which a holder on another master counts as dead; one on this master does so at once."""
_BAKING = "baking "
_DELETING = "deleting images"
_RETRY = 1.0
"""Seconds between two attempts."""


@contextmanager
def baking(store: Store, recipe: str, progress: Callable[..., None]) -> Iterator[None]:
    """Keep every layer while the block runs. Waits until no image is being deleted."""
    name = f"{_BAKING}{recipe} {secrets.token_hex(4)}"  # any number may bake at once
    try:
        with store.lease(name, LEASE):
            _wait_for_deletion(store, recipe, progress)
            yield
    finally:
        store.forget_lease(name)


def _wait_for_deletion(store: Store, recipe: str, progress: Callable[..., None]) -> None:
    reported = False
    while holder := store.holder(_DELETING):
        if not reported:
            progress(f"waiting: {holder} deletes images", "image/waiting", recipe=recipe)
        reported = True
        time.sleep(_RETRY)


@contextmanager
def recipe_lock(store: Store, recipe: str, progress: Callable[..., None], *, wait: bool) -> Iterator[None]:
    """Hold the lock of a recipe while the block runs, so that no other bake builds its layers.

    ``wait``: wait for another bake to end; otherwise raise `store.Held`.
    """
    with ExitStack() as undo:
        reported = False
        while True:
            try:
                undo.enter_context(store.lease(f"bake {recipe}", LEASE))
                break
            except Held as err:
                if not wait:
                    raise
                if not reported:
                    progress(f"waiting: {err}", "image/waiting", recipe=recipe)
                reported = True
                time.sleep(_RETRY)
        yield


def is_at_work(store: Store) -> bool:
    """Return whether images are baked or deleted now."""
    return any(store.holder(name) for name in (_DELETING, *store.taken(_BAKING)))


@contextmanager
def deleting(store: Store) -> Iterator[None]:
    """Let no bake begin while the block runs. Raises CommandExecutionError where one is under way."""
    with store.lease(_DELETING, LEASE):
        for name in store.taken(_BAKING):
            if holder := store.holder(name):
                recipe = name.removeprefix(_BAKING).partition(" ")[0]
                raise CommandExecutionError(
                    f"{holder} bakes {recipe}, and no image is deleted meanwhile; repeat this when the bake has ended"
                )
            store.forget_lease(name)  # that bake was killed
        yield
