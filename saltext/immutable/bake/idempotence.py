"""Apply the states of a layer again, as a dry run on what was baked, and say which would change something."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from saltext.immutable.bake import image_tests, temporary_key
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Stack
from saltext.immutable.builder.states import failures
from saltext.immutable.spec.model import NOTED, Recipe


def is_asked(context: BakeContext, recipe: Recipe) -> bool:
    """Return whether this bake asks for it, whatever the recipe says."""
    return context.again and recipe.name == context.recipe.name


def checked(context: BakeContext, recipe: Recipe, stack: Stack, order: Mapping[str, Any]) -> Stack:
    """Return the stack with the test that its highest layer's states are idempotent, or with those that are not.

    ``order``: that of the layer. Raises CommandExecutionError where the test fails.
    """
    began, what = time.monotonic(), order["what"]
    context.progress(f"{what}: apply again", "image/phase", what=what, phase="apply again")
    left = [each["state"] for each in stack.top.get("deferred") or ()]
    more = {"below": stack.digests, "offline": context.offline, "left": left}
    with temporary_key.enrolled(context, order["bake_id"]):
        found = context.builder("apply_again", order={**order, **more})
    if recipe.tests.idempotent == NOTED and not is_asked(context, recipe):
        return stack.amend_top(restless=list(found))
    message, seconds = failures.describe_changed(found), round(time.monotonic() - began, 3)
    result = {"name": "idempotent", "phase": "inside", "recipe": recipe.name, "seconds": seconds, "message": message}
    tests = [*(stack.top.get("tests") or ()), {**result, "passed": not found}]
    image_tests.require_inside(context.store, recipe.name, tests)
    return stack.amend_top(tests=tests)
