"""Images of real bakes go when nothing needs them, whatever is killed, mounted, baked or rolled meanwhile.

It bakes an image several times over: only in the full run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from support.slices import full

from saltext.immutable.images import layers
from saltext.immutable.machines import images

pytestmark = full("bakes many images", minutes=1.5)


@pytest.fixture(scope="module")
def four(estate):
    """Four images of one recipe: the fleet runs the second and could go back to the first; nobody needs the third."""
    definitions = estate.pillar / "immutable.sls"
    text = definitions.read_text()
    states = "      states: [small]\n"
    definitions.write_text(text.replace(states, f"{states}      keep: 1\n", 1))
    names = []
    try:
        for version, channel in enumerate(("stable", "stable", "candidate", "candidate"), 11):
            estate.write_pillar("web", {"web": {"version": str(version), "status": 200}})
            names.append(estate.salt_run("image.bake", "small", f"channel={channel}").data["image"])
            if channel == "stable":
                assert estate.salt_run("fleet.roll", "small").data["outcome"] == "done"
        yield names
    finally:
        estate.salt_run("fleet.destroy", "small")
        definitions.write_text(text)


@pytest.fixture
def mounted(estate, four):
    """Let somebody have mounted the third image, in a mount namespace of their own."""
    stack = layers.short_names(estate.salt_run("image.show", four[2]).data["layers"])
    options = f"lowerdir={':'.join(reversed(stack))}"
    script = f"mount -t overlay overlay -o {options} /mnt && echo mounted && exec sleep 600"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], cwd=estate.host.l, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "mounted\n"
        yield
        process.kill()


def top(estate, image):
    """The layer that only this image has."""
    return estate.host.layers / estate.salt_run("image.show", image).data["layers"][-1]


def test_a_layer_that_somebody_has_mounted_stays(estate, four, mounted):
    layer = top(estate, four[2])
    told = estate.salt_run("image.prune", "test=True").data
    assert [name for name in told["deleted"] if name in four] == [four[2]]
    assert layer.name not in told["layers"]


def test_a_preview_says_what_goes_and_why_the_others_stay(estate, four):
    one, two, three, newest = four
    told = estate.salt_run("image.prune", "small", "test=True").data
    deleted = {name: why for name, why in told["deleted"].items() if name in four}
    assert deleted == {three: "number 2, and the newest 1 are kept"}
    now = estate.salt_run("fleet.status", "small").data["generation"]
    assert told["kept"][one] == f"needed by generation {now - 1} of fleet small"
    needs = f"needed by channel small:stable, generation {now} of fleet small, machine small-"
    assert told["kept"][two].startswith(needs)
    assert told["kept"][newest] == "needed by channel small:candidate"
    assert top(estate, three).name in told["layers"]
    assert told["freed"] > 0


def test_nothing_goes_while_one_bakes(estate, four):
    estate.write_pillar("web", {"web": {"version": "15", "status": 200}})
    with estate.popen("image.bake", "small", "channel=next") as bake:
        for line in bake.stderr:
            if line.startswith("building the layer"):
                break
        refused = estate.salt_run("image.prune", check=False)
        bake.communicate()
    assert refused.returncode == 1
    assert "bakes small, and no image is deleted meanwhile" in refused.stdout + refused.stderr
    assert bake.returncode == 0


def test_killed_at_any_moment_it_is_finished_by_the_next_and_fleets_go_on(estate, four):
    one, two, three, _ = four
    layer = top(estate, three)
    for delay in (0.9, 1.1, 1.3, 1.5):
        with estate.popen("image.prune") as prune:
            time.sleep(delay)
            os.kill(prune.pid, signal.SIGKILL)
    estate.salt_run("image.prune")
    assert not layer.exists()
    known = {row["digest"] for row in estate.salt_run("image.list").data.values()}
    assert set(images.by_digest(estate.host)) == known
    needed = layers.needed(estate.host)
    assert all(folder.name[:16] in needed for folder in estate.host.layers.iterdir())
    assert all(link.exists() for link in estate.host.l.iterdir())
    assert estate.salt_run("fleet.rollback", "small").data["image"] == one
    assert estate.salt_run("fleet.roll", "small").data["image"] == two
    again = estate.salt_run("image.bake", "small", "channel=next").data
    assert again["cached"] is True


def test_a_revoked_image_that_runs_is_told_of_and_left_for_the_channel_of_before(estate, four):
    one, two, _, _ = four
    told = estate.salt_run("image.revoke", "small:stable", "reason=openssl").data
    [machines] = told["fleets"]["small"].values()
    assert (told["revoked"], machines) == ([two], 1)
    assert "openssl" in estate.salt_run("fleet.status", "small").data["revoked"][0]
    refused = estate.salt_run("fleet.roll", "small", check=False)
    assert refused.returncode == 1 and "promote another" in refused.stdout + refused.stderr
    assert estate.salt_run("image.rollback", "small").data["image"] == one
    assert estate.salt_run("fleet.roll", "small").data["image"] == one
    assert "revoked" not in estate.salt_run("fleet.status", "small").data["image"]
