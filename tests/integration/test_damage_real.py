"""What machines are launched from is damaged in each way, at each moment of a rollout of real machines.

It is never launched from and never exported, the next bake builds it again, and the next roll is done with it. Two of
the old machines, or as many in their place, have visitors all the time.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import WAYS, Place, Way
from support.slices import full
from support.stage import Stage

from saltext.immutable.machines import commands, images, overlay
from saltext.immutable.machines import machine as machines

SIZE = 2
TARGET, SHARED = "etc/small", "etc/nginx/fastcgi.conf"
"""A file of the layer that only the target has, and of one that it shares with the image that serves."""
OFTEN = 0.02
VERSIONS = count(2)


@pytest.fixture(scope="module")
def stage(estate, tmp_path_factory) -> Iterator[Stage]:
    """Two machines that have visitors; their image is that of a web server, and one layer more that is made quickly."""
    texts = {file: file.read_text() for file in (estate.pillar / "immutable.sls", estate.pillar / "top.sls")}
    file, top = texts
    pillar = yaml.safe_load(texts[file])
    server = {"from": {"recipe": "base"}, "bake_id": "server-bake.tests.example.com", "states": ["web"]}
    web = {"from": {"recipe": "server"}, "bake_id": "web-bake.tests.example.com", "states": ["small"]}
    pillar["immutable"]["recipes"] |= {"server": server, "web": web}
    file.write_text(yaml.safe_dump(pillar))
    top.write_text(f"{texts[top]}  'server-*':\n    - server\n")
    estate.write_pillar("server", {"web": {"version": "of the server", "status": 200}})
    try:
        with Stage(estate, tmp_path_factory.mktemp("damage"), fleet={"size": SIZE}) as found:
            found.bake("1")
            estate.salt_run("fleet.roll", "web")
            found.is_sound(SIZE)
            yield found
    finally:
        for changed, text in texts.items():
            changed.write_text(text)
        (estate.pillar / "server.sls").unlink()
        estate.salt_run("image.prune")
        assert images.list_set_aside(estate.host) == []


class Launches(threading.Thread):
    """Look which machines come that are launched from something, from when on it is damaged."""

    def __init__(self, host: Any, name: str) -> None:
        super().__init__(daemon=True)
        self._host, self._name, self._end = host, name, threading.Event()
        self._before: set[str] = set()
        self.seen: set[str] = set()
        self.damaged = False

    def mark(self) -> None:
        """From now on it is damaged."""
        self._before = self._there()
        self.damaged = True
        self.start()

    def end(self) -> set[str]:
        """Return the machines that were launched from it since."""
        assert self.damaged, "nothing was damaged"
        self._end.set()
        self.join()
        return self.seen - self._before

    def _there(self) -> set[str]:
        return {one.minion_id for one in machines.machines(self._host) if self._name in one.lower}

    def run(self) -> None:
        while not self._end.wait(OFTEN):
            self.seen |= self._there()


Ended = tuple[int, str]
Moment = Callable[[Stage, Callable[[], None]], Ended]


def before_it_starts(stage: Stage, damage: Callable[[], None]) -> Ended:
    damage()
    return stage.ended(stage.begin("fleet.roll", "web"))


def as_it_is_planned(stage: Stage, damage: Callable[[], None]) -> Ended:
    """The first launch is in the journal, and waits for the lock to verify the image."""
    with stage.estate.host.lock("verify"):
        began, roll = stage.now(), stage.begin("fleet.roll", "web")
        stage.wait_for_entry("launch", after=began)
        damage()
    return stage.ended(roll)


def after(*entries: str) -> Moment:
    """Return the moment at which these entries have been written, one after the other."""

    def moment(stage: Stage, damage: Callable[[], None]) -> Ended:
        began, roll = stage.now(), stage.begin("fleet.roll", "web")
        for entry in entries:
            stage.wait_for_entry(entry, after=began)
            began = next(number for number, what, _ in stage.entries(began) if what == entry)
        damage()
        return stage.ended(roll)

    return moment


def while_nobody_drives(stage: Stage, damage: Callable[[], None]) -> Ended:
    began, roll = stage.now(), stage.begin("fleet.roll", "web")
    stage.wait_for_entry("launched", after=began)
    roll.kill()
    roll.wait()
    damage()
    return stage.ended(stage.begin("fleet.resume", "web"))


def before_a_rollback(stage: Stage, damage: Callable[[], None]) -> Ended:
    damage()
    return stage.ended(stage.begin("fleet.rollback", "web"))


@dataclass(frozen=True)
class At:
    """A moment, and how the rollout ends; ``shared``: how it does where the image that served is damaged as well."""

    moment: Moment
    outcome: str
    shared: str = ""
    back: bool = False
    """The rollout goes back to the image that is damaged."""
    strategy: Mapping[str, Any] = field(default_factory=dict)


MOMENTS = {
    "before it starts": At(before_it_starts, "rolled back"),
    "as it is planned": At(as_it_is_planned, "rolled back"),
    "while the first newcomer boots": At(after("launched"), "rolled back", "paused"),
    "while the first old one drains": At(after("drain"), "rolled back", "paused"),
    "while nobody drives": At(while_nobody_drives, "rolled back", "paused"),
    "before the last one is destroyed": At(after("drain", "drain"), "done"),
    "before the last one is kept": At(after("drain", "drain"), "done", strategy={"keep_old": "1h"}),
    "before a rollback": At(before_a_rollback, "paused", back=True),
    "before a rollback to machines that were kept": At(
        before_a_rollback, "done", back=True, strategy={"keep_old": "1h"}
    ),
}
SAMPLE = {("as it is planned", "byte", TARGET), ("while the first newcomer boots", "swapped", TARGET)}
FULL = full("damages what real machines are launched from", minutes=0.5, apart=True)


def rows() -> Iterator[Any]:
    tried = [(way, TARGET) for way in WAYS] + [("byte", SHARED)]
    for moment in MOMENTS:
        for way, file in tried:
            marks = () if (moment, way, file) in SAMPLE else FULL
            name = f"{way} of a shared layer" if file == SHARED else way
            yield pytest.param(MOMENTS[moment], WAYS[way], file, id=f"{name} {moment}", marks=marks)


def bake(stage: Stage, version: str | None = None) -> dict[str, Any]:
    """Bake a version, or that which serves; return the report, with its ``version``."""
    if version is not None:
        stage.version(version)
    version = json.loads((stage.estate.pillar / "web.sls").read_text())["web"]["version"]
    return {**stage.estate.salt_run("image.bake", "web").data, "version": version}


@pytest.mark.parametrize(("at", "way", "file"), rows())
def test_what_is_damaged_is_neither_launched_nor_exported_and_is_made_again(
    estate, stage, tmp_path, at: At, way: Way, file: str
):
    stage.strategy(**at.strategy)
    serves, baked = bake(stage), bake(stage, str(next(VERSIONS)))
    if at.back:
        estate.salt_run("fleet.roll", "web")
        serves, baked = baked, bake(stage, serves["version"])
    [layer] = [one["digest"] for one in baked["layers"] if (estate.host.layers / one["digest"] / "fs" / file).exists()]
    place = Place(estate.host, baked["digest"], layer, file, other=serves["layers"][-1]["digest"])
    launches = Launches(estate.host, images.seal_link(place.image) if way.of_image else overlay.short(place.layer))

    def damage() -> None:
        way.damage(place)
        launches.mark()

    with stage.watched(floor=SIZE):
        code, said = at.moment(stage, damage)
        outcome = at.shared or at.outcome if way.of_both or file == SHARED else at.outcome
        assert (stage.outcome(), code) == (outcome, 0 if outcome == "done" else 1), said
        if code:
            assert_says(said, way, place)
        assert_is_not_exported(estate, way, place, tmp_path / "image.tar")
        assert launches.end() == set()
        make_again(stage, way, place)
        assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
    there = commands.list_machines(estate.host)
    kept = sum(one["phase"] == "kept" for one in stage.status["machines"])
    stage.is_sound(SIZE, kept)
    assert not [one for one in there if one["damaged"]]
    assert {one["image"] for one in there} == {place.image}


def assert_says(said: str, way: Way, place: Place) -> None:
    for part in way.sentences(place):
        assert part in said, said


def assert_is_not_exported(estate, way: Way, place: Place, target: Path) -> None:
    refused = estate.salt_run("image.export", place.image, "format=tar", f"target={target}", check=False)
    assert refused.returncode == 1
    assert_says(refused.stdout + refused.stderr, way, place)
    assert not target.exists()


def make_again(stage: Stage, way: Way, place: Place) -> None:
    """Bake, and look whether what was damaged is set aside, and is there again; the report says that it is the same."""
    answer = stage.estate.salt_run("image.bake", "web")
    name = place.image if way.of_image else place.layer
    assert name in {folder.name.partition(".")[0] for folder in images.list_set_aside(place.host)}
    assert (answer.data["digest"], answer.data["cached"]) == (place.image, way.of_image)
    if not way.of_image:
        [again] = [one for one in answer.data["layers"] if one["digest"] == place.layer]
        assert_says(again["damaged"], way, place)
        assert "is the same as before it was damaged" in answer.stderr
    assert stage.estate.salt_run("image.verify", answer.data["image"]).data["verified"]
