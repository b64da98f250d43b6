"""A builder whose disk is full as Debian, Salt, or the states are put into an image: a sentence, and nothing is lost.

It has a small disk of its own, and so bakes everything: only in the full run. Each phase of a root that somebody else
made tests/functional/test_full_disk.py tries in seconds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.slices import full

from saltext.immutable.host import Host
from saltext.immutable.images import layers
from saltext.immutable.machines import machine as machines

pytestmark = [
    pytest.mark.usefixtures("as_delivered"),
    full("bakes everything on a small disk", minutes=5),
]
MB = 1 << 20
ROOM = 4000


class Disk:
    """A disk in memory, whose size can be changed while it is used."""

    def __init__(self, place: Path) -> None:
        self.place, self.host = place, Host(place / "immutable")

    def size(self, megabytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", self.place], check=True)

    def leave(self, megabytes: int) -> None:
        """Let it have only so much left."""
        about = os.statvfs(self.place)
        self.size((about.f_blocks - about.f_bfree) * about.f_frsize // MB + 1 + megabytes)


@pytest.fixture
def disk(estate, configured, tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}m", "none", place], check=True)
    try:
        found = Disk(place)
        ours = yaml.safe_load((estate.etc / "master").read_text())["immutable"]
        own = {"root": str(found.host.root), "store": f"sqlite:///{tmp_path}/store.sqlite"}
        with configured(immutable={**ours, **own}):
            yield found
            assert machines.machines(found.host) == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_it_is_told_and_what_was_begun_is_carried_on(estate, disk):
    disk.size(150)
    fails(estate, disk)
    until(estate, "minion salt")
    disk.leave(40)
    fails(estate, disk)
    large = "large: {cmd.run: [{name: 'head -c 100M /dev/zero > /srv/large'}]}\n"
    (estate.states / "small/init.sls").write_text(large)
    until(estate, "states of small: prepare")
    disk.leave(20)
    fails(estate, disk)
    baked = estate.salt_run("image.bake", "small").data
    assert estate.salt_run("image.verify", "small:stable").data["digest"] == baked["digest"]
    assert left(disk.host) == []


def fails(estate, disk: Disk) -> None:
    """Bake on the full disk, and make room."""
    answer = estate.salt_run("image.bake", "small", check=False)
    assert answer.returncode != 0, answer
    assert "No space left on device" in answer.stderr + answer.stdout, answer
    disk.size(ROOM)
    for layer in disk.host.layers.iterdir():
        assert layers.load(disk.host, layer.name).digest == layer.name
    assert left(disk.host) == []


def left(host: Host) -> list[str]:
    """Return what is left of a bake that has ended."""
    return [*(place.name for place in host.abandoned()), *(each.minion_id for each in machines.machines(host))]


def until(estate, words: str) -> None:
    """Bake until a line is said that has these words in it, and kill it."""
    with estate.popen("image.bake", "small") as process:
        try:
            assert any(words in line for line in process.stderr)
        finally:
            process.kill()
            process.communicate()
