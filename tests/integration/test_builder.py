"""A master that bakes and runs machines on another host: everything goes through jobs on one minion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.estate import MARK, wait_for

from saltext.immutable.machines import network

BUILDER = "builder.image_tests.example.com"
pytestmark = pytest.mark.usefixtures("as_delivered")


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture
def builder(estate, configured) -> Iterator[None]:
    """A minion as root on this host, with a root directory of its own; the master is told to work through it."""
    shutil.rmtree(estate.home / "builder", ignore_errors=True)  # it would know an earlier master
    etc, here = estate.home / "builder/etc", json.loads((estate.etc / "master").read_text())["immutable"]
    etc.mkdir(parents=True)
    config = {
        "id": BUILDER,
        "root_dir": str(estate.home / "builder"),
        "master": network.gateway(estate.net),
        "master_port": estate.ports[1],
        "publish_port": estate.ports[0],
        "user": "root",
        "immutable": here,
    }
    (etc / "minion").write_text(json.dumps(config))
    stubs = estate.home / "run/etc/salt/pki/master/minions_autosign"
    stubs.mkdir(exist_ok=True)
    (stubs / BUILDER).touch()
    with configured(immutable={**here, "builder": BUILDER}):
        env = {**os.environ, MARK: str(estate.home)}
        with subprocess.Popen([script("salt-minion"), "-c", etc], env=env, start_new_session=True) as minion:
            try:
                wait_for(lambda: estate.salt(BUILDER, "test.ping", check=False).ok, 60)
                yield
            finally:
                minion.terminate()
                minion.wait(20)
                subprocess.run([script("salt-key"), "-c", estate.etc, "-y", "-d", BUILDER], check=True)


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
