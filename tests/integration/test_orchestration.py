"""Images and fleets in the tree and on the schedule: the examples, run as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import salt.config
import salt.utils.event
from support.slices import full

pytestmark = pytest.mark.usefixtures("as_delivered")


@contextmanager
def heard(estate) -> Iterator[Callable[[str, float], list[str]]]:
    """Give what listens until an event of the pack's comes, and returns the tags of all that came until then."""
    opts = salt.config.master_config(str(estate.etc / "master"))
    with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus:

        def until(tag: str, within: float) -> list[str]:
            tags, end = [], time.monotonic() + within
            while not tags or tags[-1] != tag:
                assert time.monotonic() < end, f"no {tag} within {within} s, but {tags}"
                event = bus.get_event(wait=1, tag="immutable/", full=True)
                tags += [event["tag"]] if event else []
            return tags

        yield until


def orchestrate(estate, *words: str):
    answer = estate.salt_run("state.orchestrate", "release", "saltenv=orch", *words, check=False)
    [states] = answer.data["data"].values()
    return answer.returncode, {state["__id__"]: state for state in states.values()}


def test_a_release_is_foreseen_made_and_then_as_it_should_be(estate, web):
    try:
        estate.write_pillar("web", {"web": {"version": "orchestrated", "status": 200}})
        _, foreseen = orchestrate(estate, "test=True")
        assert [state["result"] for state in foreseen.values()] == [None, None], foreseen
        assert foreseen["image of web"]["changes"] == {"layers": ["states of web"]}
        assert foreseen["fleet of web"]["changes"]["launch"] == 3
        assert estate.keys() == []

        code, made = orchestrate(estate)
        assert (code, [state["result"] for state in made.values()]) == (0, [True, True]), made
        assert made["image of web"]["changes"]["image"] == made["fleet of web"]["changes"]["image"] != web["image"]
        assert len(estate.keys()) == 3

        code, again = orchestrate(estate)
        assert (code, [state["changes"] for state in again.values()]) == (0, [{}, {}]), again
    finally:
        estate.salt_run("fleet.destroy", "web")


def test_a_release_that_fails_fails_the_orchestration(estate):
    (estate.states / "web/init.sls").write_text("no way: {cmd.run: [{name: 'exit 3'}]}\n")
    code, states = orchestrate(estate)
    assert code == 1
    assert states["image of web"]["result"] is False
    assert "no way" in states["image of web"]["comment"]
    assert states["fleet of web"]["result"] is False, "it requires the image"
    assert estate.keys() == []


@full("waits for two full minutes", minutes=4)
def test_the_masters_schedule_rebuilds_every_minute_but_never_twice_at_once(estate, configured):
    """The bake goes on for longer than a minute, over the next one's beginning."""
    estate.salt_run("image.bake", "small")
    slow = f"wait: {{cmd.run: [{{name: 'sleep 62; echo {time.monotonic_ns()}'}}]}}\n"
    (estate.states / "small/init.sls").write_text(slow)
    job = {"function": "fleet.rebuild", "args": ["small"], "cron": "* * * * *", "maxrunning": 1}
    try:
        with configured(schedule={"rebuild small": job}, loop_interval=1), heard(estate) as until:
            until("immutable/image/updates", 70)
            tags = until("immutable/small/done", 110)
        assert "immutable/image/updates" not in tags, "the minute that began in between is left out"
        assert len(estate.keys()) == 1
    finally:
        estate.salt_run("fleet.destroy", "small")
