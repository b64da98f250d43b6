"""A plan on real machines: it names what differs between two baked images, and is done exactly or not at all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def shop(estate) -> Iterator[Any]:
    """A fleet of one machine with highstate; its next image has other states, files and packages."""
    estate.salt_run("image.bake", "shop")
    try:
        estate.salt_run("fleet.roll", "shop")
        yield estate
    finally:
        estate.salt_run("fleet.destroy", "shop")


@pytest.mark.usefixtures("as_delivered")
def test_a_plan_names_what_differs_and_is_done_once(shop):
    (shop.states / "shop/files/assets/index.html").write_text("<h1>sale</h1>")
    (shop.states / "shop/front.sls").unlink()
    text = (shop.states / "top.sls").read_text()
    (shop.states / "top.sls").write_text(text.replace("shop.front", "extra"))
    (shop.states / "extra.sls").write_text("tree: {pkg.installed: []}\n")
    shop.salt_run("image.bake", "shop")
    told = shop.salt_run("fleet.plan", "shop").data
    difference = told["difference"]
    assert difference["states"] == {"added": ["extra"], "removed": ["shop.front"]}
    assert difference["files"] == {"changed": ["shop/files/assets/index.html"]}
    assert list(difference["packages"]) == ["added"]
    assert [name.partition(":")[0] for name in difference["packages"]["added"]] == ["tree"]
    assert "unknown" not in difference
    exactly_once(shop, told["plan"], told["image"])
    a_timeline_for_people(shop)


def exactly_once(shop, plan: str, image: str) -> None:
    [machine] = shop.salt_run("fleet.status", "shop").data["machines"]
    shop.salt_run("fleet.taint", machine["minion_id"], "reason='vim'")
    refused = shop.salt_run("fleet.roll", "shop", f"plan={plan}", check=False)
    assert refused.returncode == 1
    assert f"1 machine is tainted now: {machine['minion_id']}" in refused.stderr + refused.stdout
    [same] = shop.salt_run("fleet.status", "shop").data["machines"]
    assert same["minion_id"] == machine["minion_id"], "nothing was touched"
    shop.salt_run("fleet.untaint", machine["minion_id"], "reason='a false alarm'")
    assert shop.salt_run("fleet.roll", "shop", f"plan={plan}").data["image"] == image
    again = shop.salt_run("fleet.roll", "shop", f"plan={plan}", check=False)
    assert (again.returncode, "good for one roll" in again.stderr + again.stdout) == (1, True)


def a_timeline_for_people(shop) -> None:
    [machine] = shop.salt_run("fleet.status", "shop").data["machines"]
    status = at_a_terminal(shop, 150, "fleet.status", "shop")
    [head, row] = [line for line in status.splitlines() if "MACHINE" in line or machine["minion_id"] in line]
    assert row.index(machine["image"]) == head.index("IMAGE")
    narrow = at_a_terminal(shop, 40, "fleet.status", "shop")
    assert max(map(len, narrow.splitlines())) <= 40
    number = shop.salt_run("fleet.status", "shop").data["rollout"]["id"]
    shown = at_a_terminal(shop, 150, "fleet.show", str(number), "shop")
    assert f"roll {number} of fleet shop: done" in shown
    assert re.search(rf"\d s +ready +{machine['minion_id']} ", shown), shown


def at_a_terminal(shop, columns: int, *words: str) -> str:
    """Run salt-run as a person does, on a terminal so wide."""
    leader, follower = pty.openpty()
    command = [str(Path(sys.executable).with_name("salt-run")), "-c", str(shop.etc), *words]
    # Salt warns on standard error of what it did not close; that is none of ours.
    terminal = {"stdin": follower, "stdout": follower, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, "COLUMNS": str(columns)}, **terminal) as process:
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


def test_what_is_typed_for_a_program_is_data(shop):
    answer = shop.salt_run("fleet.status", "shop")
    assert json.loads(answer.stdout)["fleet"] == "shop"
