"""A step is a function and a line: what it is given, what it gives, and where it may stand."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from test_baking import WEB, FakeMaster, baked, master, store  # noqa: F401

from saltext.immutable.bake import bake
from saltext.immutable.bake.context import BakeContext
from saltext.immutable.bake.stack import Stack
from saltext.immutable.spec.model import Definitions, Settings


@pytest.fixture
def context(master, store, tmp_path) -> BakeContext:
    chain = tuple(Definitions(master.recipes, {}).chain("web"))
    return BakeContext({}, Settings(root=tmp_path), store, master, chain)


def test_a_step_is_added_by_a_function_and_a_line(context, store, monkeypatch):
    published = []

    def publish(context: BakeContext, stack: Stack) -> Stack:
        published.append((stack.require_sealed().image.name, store.channel("web", "stable")))
        return stack

    monkeypatch.setattr(bake, "IMAGE", (*bake.IMAGE, publish))
    report = bake.run(context)
    assert published == [(report["image"], report["digest"])]


def test_a_step_that_needs_an_image_stands_after_the_seal(context, monkeypatch):
    seal, sign, *others = bake.IMAGE
    monkeypatch.setattr(bake, "IMAGE", (sign, seal, *others))
    with pytest.raises(RuntimeError, match="after the step seal"):
        bake.run(context)


def test_no_step_changes_what_it_was_given(context, monkeypatch):
    """Each step is called twice with the same stack: what the second call is given, the first has left alone."""
    seen = []

    def twice(step):
        def called(*given):
            before = repr(given[-1])
            step(*given)
            assert repr(given[-1]) == before
            seen.append(step.__name__)
            return step(*given)

        return called

    for name in ("LAYERS", "IMAGE"):
        monkeypatch.setattr(bake, name, tuple(map(twice, getattr(bake, name))))
    bake.run(context)
    assert seen == [*["source", "minion", "states"] * 2, "seal", "sign", "test", "commit", "remember"]


def test_a_stack_and_a_context_are_frozen(context):
    with pytest.raises(FrozenInstanceError):
        context.preview = True
    stack = Stack().push({"what": "root", "digest": "1" * 64})
    with pytest.raises(FrozenInstanceError):
        stack.layers = ()
    assert stack.amend_top(key="k").top["key"] == "k" and "key" not in stack.top


def test_a_child_inherits_grains_and_secrets_each_once():
    stack = Stack().inherit(replace(WEB, grains={"a": 1}, secrets=("x",)))
    stack = stack.inherit(replace(WEB, grains={"b": 2}, secrets=("y", "x")))
    assert (stack.grains, stack.secrets) == ({"a": 1, "b": 2}, ("x", "y"))


def test_the_policy_has_the_services_that_the_states_want_running():
    stack = Stack().push({"what": "root", "digest": "1" * 64})
    assert stack.policy({"guard": {}}) == {"guard": {}}, "images without services keep their digest"
    stack = stack.push({"what": "base", "digest": "2" * 64, "services": {"exim4.service": True, "cron.service": True}})
    stack = stack.push({"what": "web", "digest": "3" * 64, "services": {"exim4.service": False, "a.service": True}})
    assert stack.policy({"guard": {}}) == {"guard": {}, "running": ["a.service", "cron.service"]}


def test_the_policy_has_the_states_of_which_the_bake_knows_that_they_would_change_something():
    deferred = {"state": "vm.x (sysctl.present) of web", "what": "x", "applied_by": "y"}
    layer = {"what": "web", "digest": "1" * 64, "deferred": [deferred], "restless": ["date (cmd.run) of web"]}
    policy = Stack().push(layer).policy({})
    assert policy == {"not_previewed": ["date (cmd.run) of web", "vm.x (sysctl.present) of web"]}
