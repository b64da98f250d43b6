"""kill -9 as each phase of a bake begins: nothing is half-made, prune cleans, and the next bake is right.

It bakes the same image many times over: only in the full run. What is done at each step of the commit itself, and what
a full disk does there, tests/unit/bake/test_bake_crashes.py tries in seconds.
"""

from __future__ import annotations

import pytest
import salt.version
from support.slices import full

from saltext.immutable.builder import image_commands
from saltext.immutable.images import layers, verify
from saltext.immutable.machines import images

pytestmark = [
    pytest.mark.usefixtures("as_delivered"),
    full("bakes the same image many times", minutes=6),
]
OF_ROOT = ("packages", "slim", "scrub", "search", "commit")
OF_MINION = ("minion", "slim", "scrub", "search", "commit")
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
    assert all(image_commands.has_image(estate.host, digest) for digest in known)


def unknown(estate) -> set[str]:
    """Return the images of the builder that are in no book."""
    return set(images.by_digest(estate.host)) - {row["digest"] for row in estate.salt_run("image.list").data.values()}


def says(estate, word: str) -> None:
    estate.write_pillar("tested", {"tested": {"says": word}})


def kill_at(estate, killed, nothing_is_left, recipe: str, moments: list[str], prune_every: int) -> None:
    """Kill a bake at each of these; by turns prune cleans, or the next bake begins where this one ended."""
    for number, words in enumerate(moments, 1):
        killed(recipe, words)
        if number % prune_every == 0:
            estate.salt_run("image.prune")
            nothing_is_left()
            assert unknown(estate) == set()


def fresh(estate) -> None:
    """Add a recipe whose root nobody has."""
    file = estate.pillar / "immutable.sls"
    packages = "[systemd-sysv, dbus, iproute2, python3, ca-certificates, less]"
    recipe = f"    fresh: {{from: {{debian: bookworm, packages: {packages}}}}}\n    web:\n"
    file.write_text(file.read_text().replace("    web:\n", recipe, 1))


def test_each_phase_of_a_root_and_of_salt(estate, killed, nothing_is_left):
    estate.salt_run("image.bake", "base")  # whose layers stay, whatever is pruned
    fresh(estate)
    moments = [f"debian bookworm: {name}" for name in OF_ROOT]
    moments += [f"minion salt=={salt.version.__version__}: {name}" for name in OF_MINION]
    kill_at(estate, killed, nothing_is_left, "fresh", moments, prune_every=3)
    baked = estate.salt_run("image.bake", "fresh").data
    nothing_is_left()
    assert estate.salt_run("image.verify", "fresh:stable").data["digest"] == baked["digest"]
    assert estate.salt_run("image.bake", "fresh").data["digest"] == baked["digest"]


def test_each_phase_of_states(estate, killed, nothing_is_left):
    says(estate, "killed")
    estate.salt_run("image.bake", "base")  # whose layers stay, whatever is pruned
    moments = [f"states of tested: {name}" for name in OF_STATES]
    moments += ["built states of tested", "on a machine of its own"]
    kill_at(estate, killed, nothing_is_left, "tested", moments, prune_every=2)
    baked = estate.salt_run("image.bake", "tested").data
    nothing_is_left()
    assert estate.salt_run("image.verify", "tested:stable").data["digest"] == baked["digest"]
    assert estate.salt_run("image.tests", "tested:stable").data["failed"] == 0
    says(estate, "something else")
    assert estate.salt_run("image.bake", "tested").data["digest"] != baked["digest"]
    says(estate, "killed")
    assert estate.salt_run("image.bake", "tested").data["digest"] == baked["digest"]
