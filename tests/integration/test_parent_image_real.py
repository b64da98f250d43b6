"""A recipe that is built on a baked image: real layers that are shared, a channel that moves, and what stays."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("as_delivered")

SITE = """\
    site:
      from: {image: 'small:stable'}
      bake_id: site.tests.example.com
      states: [site]
"""


def with_recipe(estate) -> None:
    file = estate.pillar / "immutable.sls"
    text = file.read_text().replace("      states: [small]\n", "      states: [small]\n      keep: 1\n", 1)
    file.write_text(text.replace("    web:\n", f"{SITE}    web:\n", 1))
    (estate.states / "site").mkdir(exist_ok=True)
    state = {"/etc/site": {"file.managed": [{"contents": "x"}]}, "there": {"cmd.run": [{"name": "cat /etc/small"}]}}
    (estate.states / "site/init.sls").write_text(json.dumps(state))


def with_small(estate, text: str) -> str:
    """Bake recipe ``small`` with a file that says ``text``; return the image."""
    state = {"/etc/small": {"file.managed": [{"contents": text}]}}
    (estate.states / "small/init.sls").write_text(json.dumps(state))
    return estate.salt_run("image.bake", "small").data["image"]


def test_a_child_stands_on_the_image_of_a_channel_and_follows_it(estate, nothing_is_left):
    with_recipe(estate)
    first = with_small(estate, "one")
    below = estate.salt_run("image.show", first).data["layers"]
    baked = estate.salt_run("image.bake", "site").data
    assert estate.salt_run("image.show", baked["image"]).data["layers"][:-1] == below
    assert [layer["cached"] for layer in baked["layers"]] == [True] * len(below) + [False]

    second = with_small(estate, "two")
    why = estate.salt_run("image.why", "site").data
    assert why["changed"] == [f"parent image small:stable moved from {first} to {second}"]
    pruned = estate.salt_run("image.prune", "small").data
    assert first in pruned["deleted"]
    assert not set(below) & set(pruned["layers"]), "the child has them"
    inside = estate.host.layers / below[-1] / "fs/etc/small"
    assert inside.read_text() == "one\n"

    moved = estate.salt_run("image.bake", "site").data
    assert moved["changed"] and moved["digest"] != baked["digest"]
    assert why["changed"][0] in estate.salt_run("image.why", "site").data["last"]

    estate.salt_run("image.revoke", second, "reason=wrong")
    refused = estate.salt_run("image.bake", "site", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1 and "site cannot be built on small:stable (from: image): " in said, said
    nothing_is_left()
