"""Every golden story with a process that is killed at every commit, before and after it, and another that carries on.

Every eighth of them, and in the full run the others too. SIM_KILLS=4 tries every fourth, SIM_KILLS=1 all;
SIM_KILL='roll 0 7 after' replays one.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
from support.slices import full

from .crowds import in_time, on_every_core
from .storytelling import STORIES, Kill, Story, stories

SHARE = int(os.environ.get("SIM_KILLS", "8"))
OTHERS = pytest.param(range(1, SHARE), id="the others", marks=full("kills at every commit", minutes=6, apart=True))


@pytest.mark.parametrize("turns", [pytest.param(range(1), id="a share"), *([OTHERS] if SHARE > 1 else [])])
def test_who_comes_after_a_kill_brings_it_to_the_same_end(capsys, turns: range) -> None:
    if "SIM_KILL" in os.environ:
        name, command, commit, when = os.environ["SIM_KILL"].split()
        _compare(Story(STORIES / f"{name}.txt"), Kill(int(command), int(commit), when))
        return
    names = [story.path.stem for story in stories()]
    found = on_every_core(partial(killed_everywhere, turns), names)
    tried = sum(count for count, _ in found)
    with capsys.disabled():
        print(f" {tried} kills in {len(names)} stories ", end="")
    failed = [line for _, lines in found for line in lines]
    assert not failed, "\n".join(failed)
    assert tried > len(names)


def killed_everywhere(turns: range, name: str) -> tuple[int, list[str]]:
    """Tell a story again for every commit that may be the last one of a process; return what went wrong."""
    story, failed = Story(STORIES / f"{name}.txt"), []
    commits = story.tell().commits
    kills = [
        Kill(command, commit, when)
        for command, count in enumerate(commits)
        for commit in range(1, count + 1)
        for when in ("before", "after")
    ]
    first = sum(name.encode())
    kills = [kill for number, kill in enumerate(kills) if (number - first) % SHARE in turns]
    for kill in kills:
        try:
            with in_time():
                _compare(story, kill)
        except Exception as err:
            said = f"{type(err).__name__}: {err}".splitlines()[0]
            failed.append(f"SIM_KILL='{name} {kill.command} {kill.commit} {kill.when}': {said}")
    return len(kills), failed


def _compare(story: Story, kill: Kill) -> None:
    """Hold a story with a kill to the end of the one without; what happens at a time may find another state then."""
    told, undisturbed = story.tell(kill), story.tell()
    if not story.repeatable:
        return
    assert told.running == undisturbed.running, "the same machines run in the end"
    assert told.lineage == undisturbed.lineage, "the same generations are good"
