"""What the lowest layer of a recipe is ordered as, and what its key is made from."""

from __future__ import annotations

from saltext.immutable.bake.keys import layer_key
from saltext.immutable.bake.steps import source
from saltext.immutable.spec.model import Directory, Parent, Tarball


def builder_with(**answers):
    return lambda name, **kwargs: answers[name]


def test_only_content_is_in_the_key():
    by_path = source.root(Tarball("/srv/a.tar"), builder_with(root_content="1" * 64))
    by_sum = source.root(Tarball("https://example.com/b.tar", "1" * 64), builder_with())
    other = source.root(Directory("/srv/root"), builder_with(root_content="2" * 64))
    assert layer_key.key(by_path.inputs) == layer_key.key(by_sum.inputs) != layer_key.key(other.inputs)
    assert by_sum.order == {
        "tarball": "https://example.com/b.tar",
        "sha256": "1" * 64,
        "what": "tarball b.tar",
    }
    assert source.root(Parent("base"), builder_with()) is None
