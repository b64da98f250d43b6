"""Rollouts with the real plan, driver and store in a simulated world; each plan is held to the invariants."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from saltext.immutable.store import Store

from .estates import Estate, settled
from .simulated import Simulated


@pytest.fixture
def estate():
    """Return what makes an estate from a simulated world."""
    with ExitStack() as undo:

        def make(world: Simulated, **changes: object) -> Estate:
            store = Store.open("sqlite://", clock=world.clock)
            return undo.enter_context(settled(world, store, **changes))

        yield make
