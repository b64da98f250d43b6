"""What machines are launched from is damaged in each way, at each moment of a rollout of real machines.

It is never launched from and never exported, the next bake builds it again, and the next roll is done with it. Two of
the old machines, or as many in their place, have visitors all the time.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import WAYS, Place, Way
from support.estate import wait_for
from support.slices import full
from support.stage import Stage

from saltext.immutable.machines import commands, damaged_images, overlay
from saltext.immutable.machines import machine as machines

SIZE = 2
TARGET, SHARED = "etc/small", "etc/nginx/fastcgi.conf"
"""A file of the layer that only the target has, and of one that it shares with the image that serves."""
OFTEN = 0.02
SERVER = {"from": {"recipe": "base"}, "bake_id": "server-bake.tests.example.com", "states": ["web"]}
WEB = {"from": {"recipe": "server"}, "bake_id": "web-bake.tests.example.com", "states": ["small"]}
"""A web server, and one layer more that is made quickly."""


class Pair:
    """A fleet, and two images that serve by turns: each rollout goes from one to the other."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.versions = ["1", "2"]
        """The one that serves, and the other one."""
        self.images: dict[str, dict[str, Any]] = {}
        self.is_ready = False

    def begin(self) -> None:
        """Bake both, and let one serve, where that is not so: at first, and after a row that failed."""
        if not self.is_ready:
            self.images = {version: self._bake(version) for version in self.versions}
            self.stage.estate.salt_run("fleet.roll", "web", f"image={self.serves['image']}")
        self.is_ready = False

    def end(self) -> None:
        """The other image serves, and both are sound."""
        self.turn()
        self.is_ready = True

    def _bake(self, version: str) -> dict[str, Any]:
        self.stage.version(version)
        return dict(self.stage.estate.salt_run("image.bake", "web").data)

    @property
    def serves(self) -> dict[str, Any]:
        return self.images[self.versions[0]]

    @property
    def target(self) -> dict[str, Any]:
        return self.images[self.versions[1]]

    def roll(self) -> subprocess.Popen[str]:
        """Begin to roll to the other image, which the next bake will make again."""
        self.stage.version(self.versions[1])
        return self.stage.begin("fleet.roll", "web", f"image={self.target['image']}")

    def bake_other(self) -> None:
        """Make the image again that served when the rollout began."""
        assert self._bake(self.versions[0])["digest"] == self.serves["digest"]

    def turn(self) -> None:
        """From now on the other image serves."""
        self.versions.reverse()


@pytest.fixture(scope="module")
def pair(estate, tmp_path_factory) -> Iterator[Pair]:
    """Two machines that have visitors. A check of HAProxy that is late, because the host is busy, is no outage."""
    file, top = estate.pillar / "immutable.sls", estate.pillar / "top.sls"
    texts = {changed: changed.read_text() for changed in (file, top)}
    pillar = yaml.safe_load(texts[file])
    pillar["immutable"]["recipes"] |= {"server": SERVER, "web": WEB}
    file.write_text(yaml.safe_dump(pillar))
    top.write_text(f"{texts[top]}  'server-*':\n    - server\n")
    estate.write_pillar("server", {"web": {"version": "of the server", "status": 200}})
    try:
        with Stage(estate, tmp_path_factory.mktemp("damage"), {"size": SIZE}, fall=5) as stage:
            yield Pair(stage)
    finally:
        for changed, text in texts.items():
            changed.write_text(text)
        (estate.pillar / "server.sls").unlink()
        estate.salt_run("image.prune")
        assert damaged_images.list_set_aside(estate.host) == []


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
Moment = Callable[[Pair, Callable[[], None]], Ended]
"""Begins a rollout, damages, and waits for the end of the rollout."""


def before_it_starts(pair: Pair, damage: Callable[[], None]) -> Ended:
    damage()
    return Stage.ended(pair.roll())


def as_it_is_planned(pair: Pair, damage: Callable[[], None]) -> Ended:
    """The first launch is in the journal, and waits for the lock to verify the image."""
    began = pair.stage.now()
    with pair.stage.estate.host.lock("verify"):
        roll = pair.roll()
        pair.stage.wait_for_entry("launch", after=began)
        damage()
    return Stage.ended(roll)


def as_the_first_newcomer_boots(pair: Pair, damage: Callable[[], None]) -> Ended:
    began, roll = pair.stage.now(), pair.roll()
    pair.stage.wait_for_entry("launched", after=began)
    damage()
    return Stage.ended(roll)


def as_the_first_old_one_drains(pair: Pair, damage: Callable[[], None]) -> Ended:
    """The second launch may be in the journal by now; it waits for the lock, too."""
    began, roll = pair.stage.now(), pair.roll()
    pair.stage.wait_for_entry("launched", after=began)
    with pair.stage.estate.host.lock("verify"):
        pair.stage.wait_for_entry("drain", after=began)
        damage()
    return Stage.ended(roll)


def before_the_last_old_one_goes(pair: Pair, damage: Callable[[], None]) -> Ended:
    began, roll = pair.stage.now(), pair.roll()
    wait_for(lambda: [what for _, what, _ in pair.stage.entries(began)].count("launched") == SIZE, every=OFTEN)
    damage()
    return Stage.ended(roll)


def while_nobody_drives(pair: Pair, damage: Callable[[], None]) -> Ended:
    began, roll = pair.stage.now(), pair.roll()
    pair.stage.wait_for_entry("launched", after=began)
    roll.kill()
    roll.wait()
    damage()
    return Stage.ended(pair.stage.begin("fleet.resume", "web"))


def before_a_rollback(pair: Pair, damage: Callable[[], None]) -> Ended:
    """The image to go back to is the one that is damaged."""
    damage()
    return Stage.ended(pair.stage.begin("fleet.rollback", "web"))


@dataclass(frozen=True)
class At:
    """A moment, and how the rollout ends; ``both``: how it does where the image that serves is damaged as well."""

    moment: Moment
    outcome: str
    both: str
    strategy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        kept = ", old ones are kept" if "keep_old" in self.strategy else ""
        return f"{self.moment.__name__.replace('_', ' ')}{kept}"


KEPT = {"keep_old": "1h"}
MOMENTS = (
    At(before_it_starts, "rolled back", "rolled back"),
    At(as_it_is_planned, "rolled back", "rolled back"),
    At(as_the_first_newcomer_boots, "rolled back", "paused"),
    At(as_the_first_old_one_drains, "rolled back", "paused"),
    At(before_the_last_old_one_goes, "done", "done"),
    At(before_a_rollback, "paused", "paused"),
)
FURTHER = (
    At(while_nobody_drives, "rolled back", "paused"),
    At(before_the_last_old_one_goes, "done", "done", KEPT),
    At(before_a_rollback, "done", "done", KEPT),
)
FULL = full("damages what real machines are launched from", minutes=0.5, apart=True)


def rows() -> Iterator[Any]:
    for at in (*MOMENTS, *FURTHER):
        for way in WAYS if at in MOMENTS else ("byte",):
            yield pytest.param(at, WAYS[way], TARGET, id=f"{way} {at.name}", marks=FULL)
        yield pytest.param(at, WAYS["byte"], SHARED, id=f"byte of a shared layer {at.name}", marks=FULL)


@pytest.mark.parametrize(("at", "way", "file"), list(rows()))
def test_what_is_damaged_is_neither_launched_nor_exported_and_is_made_again(
    estate, pair, tmp_path, at: At, way: Way, file: str
):
    stage = pair.stage
    stage.strategy(**at.strategy)
    pair.begin()
    if at.moment is before_a_rollback:
        assert stage.ended(pair.roll())[0] == 0
        pair.turn()
        stage.version(pair.versions[1])
    place = place_of(pair, file)
    launches = Launches(estate.host, overlay.seal_name(place.image) if way.of_image else overlay.short(place.layer))

    def damage() -> None:
        way.damage(place)
        launches.mark()

    with stage.watched(floor=SIZE):
        code, said = at.moment(pair, damage)
        outcome = at.both if way.of_both or file == SHARED else at.outcome
        assert (stage.outcome(), code) == (outcome, 0 if outcome == "done" else 1), said
        if code:
            assert_says(said, way, place)
        assert_is_not_exported(estate, way, place, tmp_path / "image.tar")
        assert launches.end() == set()
        make_again(stage, way, place)
        assert estate.salt_run("fleet.roll", "web").data["outcome"] == "done"
    there = commands.list_machines(estate.host)
    serving = [one for one in there if one["minion_id"] in stage.generations()]
    stage.is_sound(SIZE, kept=len(there) - SIZE)
    assert [(one["image"], one["damaged"]) for one in serving] == [(place.image, "")] * SIZE
    if way.of_both:
        pair.bake_other()
    pair.end()


def place_of(pair: Pair, file: str) -> Place:
    """Return what is damaged: the layer of the target that has a file."""
    host, layers = pair.stage.estate.host, [one["digest"] for one in pair.target["layers"]]
    [layer] = [digest for digest in layers if (host.layers / digest / "fs" / file).exists()]
    return Place(host, pair.target["digest"], layer, file, other=pair.serves["layers"][-1]["digest"])


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
    assert name in {folder.name.partition(".")[0] for folder in damaged_images.list_set_aside(place.host)}
    assert answer.data["digest"] == place.image
    if not way.of_image:
        [again] = [one for one in answer.data["layers"] if one["digest"] == place.layer]
        assert_says(again["damaged"], way, place)
        both = "cannot be used any more" in answer.stderr  # the other layer is set aside as well, if it was baked last
        assert "is the same as before it was damaged" in answer.stderr or (way.of_both and both)
