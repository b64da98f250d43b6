"""Several recipes with one command: what is common is baked once, one that fails stops no other, Ctrl-C ends all."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.estate import wait_for

from saltext.immutable.machines import machine as machines

pytestmark = pytest.mark.usefixtures("as_delivered")


def twin(estate) -> None:
    """Give ``small`` a twin whose states are of this moment, too."""
    file = estate.pillar / "immutable.sls"
    recipe = "    twin: {from: {recipe: base}, bake_id: web-twin.tests.example.com, states: [small]}\n    web:\n"
    file.write_text(file.read_text().replace("    web:\n", recipe, 1))


def states(estate, command: str) -> None:
    text = f"wait: {{cmd.run: [{{name: '{command}; echo {time.monotonic_ns()}'}}]}}\n"
    (estate.states / "small/init.sls").write_text(text)


def test_independent_recipes_are_baked_at_the_same_time_and_one_that_fails_stops_none(estate, nothing_is_left):
    twin(estate)
    states(estate, "sleep 3")
    at_once: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        bake = pool.submit(estate.salt_run, "image.bake", "twin,broken,small,base", check=False)
        while not bake.done():
            at_once.append(baking(estate))
            time.sleep(0.1)
    answer = bake.result()
    report = answer.data
    assert (answer.returncode, report["failed"]) == (1, ["broken"]), answer
    assert "1 of 2 states failed in the bake" in report["recipes"]["broken"]["error"]
    for name in ("base", "small", "twin"):
        assert report["recipes"][name]["image"].startswith(f"{name}@")
    base = [report["recipes"][name]["layers"][1]["digest"] for name in ("base", "small", "twin")]
    assert len(set(base)) == 1
    assert "small: states of small: states" in answer.stderr
    assert max(at_once) > 1
    nothing_is_left()


def test_ctrl_c_ends_all_of_them(estate, nothing_is_left):
    process = both_at_work(estate)
    process.send_signal(2)
    said = process.communicate(timeout=30)
    assert process.returncode == 1, said
    nothing_is_left()


def test_after_a_kill_of_all_of_them_the_next_bake_carries_on(estate, nothing_is_left):
    process = both_at_work(estate)
    process.kill()
    process.communicate()
    states(estate, "true")
    report = estate.salt_run("image.bake", "twin,small").data["recipes"]
    assert {name: told["image"].partition("@")[0] for name, told in report.items()} == {
        "twin": "twin",
        "small": "small",
    }
    nothing_is_left()


def both_at_work(estate) -> subprocess.Popen[str]:
    """Return a bake of two recipes that are both at their states."""
    twin(estate)
    states(estate, "sleep 60")
    process = estate.popen("image.bake", "twin,small")
    wait_for(lambda: baking(estate) == 2 or process.poll() is not None, 60, every=0.02)
    assert process.poll() is None, process.communicate()
    return process


def baking(estate) -> int:
    return sum(1 for each in machines.machines(estate.host) if each.upper)
