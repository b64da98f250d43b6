"""A plan on real machines: it names what differs between two baked images, and is done exactly or not at all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.estate import run
from support.slices import full

pytestmark = full("bakes and rolls to compare plans", minutes=1)


@pytest.fixture(scope="module")
def small(estate) -> Iterator[Any]:
    """A fleet of one machine, with little in it that takes time to bake."""
    states(estate, "small", "before")
    (estate.states / "before.sls").write_text("/etc/before: file.touch\n")
    (estate.states / "small/notes").write_text("old")
    with (estate.states / "small/init.sls").open("a") as sls:
        sls.write("\n/etc/notes: {file.managed: [{source: 'salt://small/notes'}]}\n")
    estate.salt_run("image.bake", "small")
    try:
        estate.salt_run("fleet.roll", "small")
        yield estate
    finally:
        estate.salt_run("fleet.destroy", "small")


def states(estate, *names: str) -> None:
    """Write into the pillar which states the image is made of."""
    pillar = yaml.safe_load((estate.pillar / "immutable.sls").read_text())
    pillar["immutable"]["recipes"]["small"]["states"] = list(names)
    (estate.pillar / "immutable.sls").write_text(yaml.safe_dump(pillar))


def package(place: Path) -> None:
    """Make a Debian package that has nothing in it: one from the archive would take most of this test's time."""
    control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: none <none@example.com>\nDescription: tiny\n"
    (place / "tiny/DEBIAN").mkdir(parents=True)
    (place / "tiny/DEBIAN/control").write_text(control)
    run("dpkg-deb", "--build", str(place / "tiny"), str(place / "tiny.deb"))


@pytest.mark.usefixtures("as_delivered")
def test_a_plan_names_what_differs_and_is_done_once(small):
    package(small.states)
    states(small, "small", "extra")
    (small.states / "extra.sls").write_text("tiny: {pkg.installed: [{sources: [{tiny: 'salt://tiny.deb'}]}]}\n")
    (small.states / "small/notes").write_text("new")
    small.salt_run("image.bake", "small")
    told = small.salt_run("fleet.plan", "small").data
    difference = told["difference"]
    assert difference["states"] == {"added": ["extra"], "removed": ["before"]}
    assert difference["files"] == {"added": ["tiny.deb"], "changed": ["small/notes"]}
    assert difference["packages"] == {"added": {"tiny:all": "1.0"}}
    assert "unknown" not in difference
    exactly_once(small, told["plan"], told["image"])
    a_timeline_for_people(small)


def exactly_once(small, plan: str, image: str) -> None:
    [machine] = small.salt_run("fleet.status", "small").data["machines"]
    small.salt_run("fleet.taint", machine["minion_id"], "reason='vim'")
    refused = small.salt_run("fleet.roll", "small", f"plan={plan}", check=False)
    assert refused.returncode == 1
    assert f"1 machine is tainted now: {machine['minion_id']}" in refused.stderr + refused.stdout
    [same] = small.salt_run("fleet.status", "small").data["machines"]
    assert same["minion_id"] == machine["minion_id"], "nothing was touched"
    small.salt_run("fleet.untaint", machine["minion_id"], "reason='a false alarm'")
    assert small.salt_run("fleet.roll", "small", f"plan={plan}").data["image"] == image
    again = small.salt_run("fleet.roll", "small", f"plan={plan}", check=False)
    assert (again.returncode, "good for one roll" in again.stderr + again.stdout) == (1, True)


def a_timeline_for_people(small) -> None:
    [machine] = small.salt_run("fleet.status", "small").data["machines"]
    status = at_a_terminal(small, 150, "fleet.status", "small")
    [head, row] = [line for line in status.splitlines() if "MACHINE" in line or machine["minion_id"] in line]
    assert row.index(machine["image"]) == head.index("IMAGE")
    narrow = at_a_terminal(small, 40, "fleet.status", "small")
    assert max(map(len, narrow.splitlines())) <= 40
    number = small.salt_run("fleet.status", "small").data["rollout"]["id"]
    shown = at_a_terminal(small, 150, "fleet.show", str(number), "small")
    assert f"roll {number} of fleet small: done" in shown
    assert re.search(rf"\d s +ready +{machine['minion_id']} ", shown), shown


def at_a_terminal(small, columns: int, *words: str) -> str:
    """Run salt-run as a person does, on a terminal so wide."""
    leader, follower = pty.openpty()
    command, environ = small.typed(*words)
    # Salt warns on standard error of what it did not close; that is none of ours.
    terminal = {"stdin": follower, "stdout": follower, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**environ, "COLUMNS": str(columns)}, **terminal) as process:
        os.close(follower)
        said = b""
        try:
            while part := os.read(leader, 65536):
                said += part
        except OSError:  # what Linux says of a terminal that nobody writes to any more
            pass
        finally:
            os.close(leader)
    assert process.returncode == 0, said
    return said.decode().replace("\r\n", "\n")


def test_what_is_typed_for_a_program_is_data(small):
    answer = small.salt_run("fleet.status", "small")
    assert json.loads(answer.stdout)["fleet"] == "small"
