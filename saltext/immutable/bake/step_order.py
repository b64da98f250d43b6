"""The steps of a bake, in order. To add one, write a function in a file of ``steps/``, and name it here."""

from __future__ import annotations

from collections.abc import Callable

from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Stack
from saltext.immutable.bake.steps.commit import commit
from saltext.immutable.bake.steps.minion import minion
from saltext.immutable.bake.steps.remember import remember
from saltext.immutable.bake.steps.seal import seal
from saltext.immutable.bake.steps.sign import sign
from saltext.immutable.bake.steps.source import source
from saltext.immutable.bake.steps.states import states
from saltext.immutable.bake.steps.test import test
from saltext.immutable.spec.model import Recipe

LAYERS: tuple[Callable[[BakeContext, Recipe, Stack], Stack], ...] = (source, minion, states)
"""Steps for each recipe of the chain, the root first. Each puts its layers on the stack, if there are any."""

IMAGE: tuple[Callable[[BakeContext, Stack], Stack], ...] = (seal, sign, test, commit, remember)
"""Steps that make an image of all the layers. Until `commit` has ended, nothing uses the image."""
