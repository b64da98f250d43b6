"""A master that bakes and runs machines on another host: everything goes through jobs on one minion."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest
import yaml
from support.estate import wait_for

BUILDER = "builder.image_tests.example.com"
pytestmark = pytest.mark.usefixtures("as_delivered")


@pytest.fixture
def builder(estate, configured) -> Iterator[None]:
    """A minion as root on this host, with a root directory of its own; the master is told to work through it."""
    place = estate.home / "builder"
    shutil.rmtree(place, ignore_errors=True)  # it would know an earlier master
    here = yaml.safe_load((estate.etc / "master").read_text())["immutable"]
    with configured(immutable={**here, "builder": BUILDER}), estate.minion(BUILDER, place, immutable=here):
        wait_for(lambda: estate.salt(BUILDER, "test.ping", check=False).ok, 60)
        yield


def test_an_image_is_baked_and_a_machine_launched_through_a_minion(estate, builder):
    estate.write_pillar("web", {"web": {"version": f"remote {time.time_ns()}", "status": 200}})
    try:
        image = estate.salt_run("image.bake", "small").data["image"]
        assert estate.salt_run("fleet.roll", "small").data["image"] == image
        [machine] = estate.salt_run("fleet.status", "small").data["machines"]
        assert (machine["phase"], machine["image"]) == ("serving", image)
        assert estate.salt(machine["minion_id"], "immutable.status").data[machine["minion_id"]]["image"] == image
        ran = {job["Function"] for job in estate.salt_run("jobs.list_jobs").data.values() if job["Target"] == BUILDER}
        assert {"image.state_layer", "image.make_image", "machine.launch", "machine.list_machines"} <= ran
        failed = estate.salt_run("image.bake", "broken", check=False)
        assert failed.returncode == 1
        assert "no route to the database" in failed.stdout + failed.stderr
    finally:
        estate.salt_run("fleet.destroy", "small")
    assert not (estate.home / "builder/machines").exists()
