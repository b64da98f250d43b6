"""kill -9 as each phase of a bake begins: nothing is half-made, prune cleans, and the next bake is right.

IMMUTABLE_FULL=1: it bakes the same image many times over. What is done at each step of the commit itself, and what a
full disk does there, tests/unit/bake/test_bake_crashes.py tries in seconds.
"""

from __future__ import annotations

import os

import pytest

from saltext.immutable.bake import builder, layers, verify
from saltext.immutable.machines import images

pytestmark = [
    pytest.mark.usefixtures("as_delivered"),
    pytest.mark.skipif(not os.environ.get("IMMUTABLE_FULL"), reason="bakes many times: IMMUTABLE_FULL=1"),
]
OF_STATES = ("prepare", "states", "inside tests", "stop", "slim", "scrub", "search", "commit")


@pytest.fixture
def killed(estate):
    """Return what bakes until a line is said that has some words in it, kills it, and looks at what there is."""

    def bake(recipe: str, words: str) -> None:
        with estate.popen("image.bake", recipe) as process:
            heard = []
            try:
                for line in process.stderr:
                    heard.append(line)
                    if words in line:
                        break
            finally:
                process.kill()
                process.communicate()
        assert any(words in line for line in heard), (words, heard)
        whole(estate)

    return bake


def whole(estate) -> None:
    """What a builder has a name for is all there."""
    for layer in estate.host.layers.iterdir():
        assert layers.load(estate.host, layer.name).digest == layer.name
        if (estate.host.l / layer.name[:16]).exists():
            verify.require_layers(estate.host, [layer.name])
    known = {row["digest"] for row in estate.salt_run("image.list").data.values()}
    assert all(builder.has_image(estate.host, digest) for digest in known)


def unknown(estate) -> set[str]:
    """Return the images of the builder that are in no book."""
    return set(images.every(estate.host)) - {row["digest"] for row in estate.salt_run("image.list").data.values()}


def says(estate, word: str) -> None:
    estate.write_pillar("tested", {"tested": {"says": word}})


def test_each_phase_of_states(estate, killed, nothing_is_left):
    says(estate, "killed")
    estate.salt_run("image.bake", "base")  # whose layers stay, whatever is pruned
    moments = [f"states of tested: {name}" for name in OF_STATES]
    for number, words in enumerate([*moments, "built states of tested", "on a machine of its own"]):
        killed("tested", words)
        if number % 2:  # by turns: prune cleans, or the next bake begins where this one ended
            estate.salt_run("image.prune")
            nothing_is_left()
            assert unknown(estate) == set()
    baked = estate.salt_run("image.bake", "tested").data
    nothing_is_left()
    assert estate.salt_run("image.verify", "tested:stable").data["digest"] == baked["digest"]
    assert estate.salt_run("image.tests", "tested:stable").data["failed"] == 0
    says(estate, "something else")
    assert estate.salt_run("image.bake", "tested").data["digest"] != baked["digest"]
    says(estate, "killed")
    assert estate.salt_run("image.bake", "tested").data["digest"] == baked["digest"]
