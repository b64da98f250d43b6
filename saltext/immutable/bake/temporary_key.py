"""The key of the minion that bakes: accepted on the master while a layer is built or an image is tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from salt.exceptions import SaltInvocationError

from saltext.immutable.bake.context import BakeContext
from saltext.immutable.minions import Minions, public_key
from saltext.immutable.spec.model import Recipe


@contextmanager
def enrolled(context: BakeContext, bake_id: str | None) -> Iterator[None]:
    """Have the builder's key accepted for ``bake_id`` while the block runs, and delete it afterwards.

    None: the block needs no minion. Raises SaltInvocationError where a minion of that id has a key already.
    """
    if bake_id is None:
        yield
        return
    with closing(Minions(context.opts)) as salt:
        if bake_id in salt.known():
            raise SaltInvocationError(
                f"bake_id: a minion called {bake_id} has a key on this master; choose an id that no minion has"
            )
        context.store.add_enrolled(bake_id)
        try:
            salt.enrol(bake_id, context.builder("make_key", bake_id=bake_id, master_key=public_key(context.opts)))
            yield
        finally:
            salt.forget(bake_id)
            context.store.remove_enrolled(bake_id)


def delete_leftover(context: BakeContext, recipe: Recipe) -> None:
    """Delete the key that a killed bake of this recipe left on the master."""
    if recipe.bake_id in context.store.enrolled():
        with closing(Minions(context.opts)) as salt:
            salt.forget(recipe.bake_id)
        context.store.remove_enrolled(recipe.bake_id)
