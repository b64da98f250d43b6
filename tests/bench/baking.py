"""What a bake costs, against the same states, the same root and the same disk without us.

The recipes and states are in ``tree``. Both sides have their packages in a cache and ask the mirrors for lists; ours is
always the whole command, from ``salt-run`` to its end.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from saltext.immutable.builder import commands, mirrors
from saltext.immutable.builder.sources import debian
from saltext.immutable.builder.states import state_run as states
from saltext.immutable.host import run
from saltext.immutable.images import layers
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines import network
from saltext.immutable.machines.description import Machine
from saltext.immutable.minions import Minions, machine_config, public_key
from tests.bench.rolling import opts_of
from tests.support.estate import Answer, Estate

TREE = Path(__file__).with_name("tree")
HEAVY_FILES = 200
_TEMPLATE = "# {text}\nsystem = {{{{ grains['os'] }}}} {{{{ grains['osrelease'] }}}}\n"
CHANGED = {
    "site": ("site/index.html.jinja", "srv/site/index.html"),
    "heavy": ("heavy/0.conf.jinja", "etc/heavy/0.conf"),
    "upper": ("upper/index.html.jinja", "srv/upper/index.html"),
}
"""Recipe -> the file of its states that is changed so that its layer has to be built, and what it becomes."""
_SETTLED = 3.0
"""Seconds after which a file that was written is old enough for a fingerprint."""


# What is measured with


def lay(estate: Estate) -> None:
    """Add the recipes and states to an estate that is up."""
    shutil.copytree(TREE, estate.states, dirs_exist_ok=True, ignore=shutil.ignore_patterns("recipes.yaml"))
    names = [*(file for file, _ in CHANGED.values()), *(f"heavy/{number}.conf.jinja" for number in range(HEAVY_FILES))]
    for name in names:
        (estate.states / name).write_text(_TEMPLATE.format(text=name))
    pillar = estate.pillar / "immutable.sls"
    definitions = yaml.safe_load(pillar.read_text())
    definitions["immutable"]["recipes"] |= yaml.safe_load((TREE / "recipes.yaml").read_text())
    pillar.write_text(yaml.safe_dump(definitions))


def change(estate: Estate, recipe: str) -> str:
    """Change one file of a recipe's states; return what stands in it now."""
    text = secrets.token_hex(8)
    (estate.states / CHANGED[recipe][0]).write_text(_TEMPLATE.format(text=text))
    return text


def bake_changed(estate: Estate, recipe: str) -> Answer:
    """Change a recipe's states and bake it: its own layer is built, and nothing below."""
    text = change(estate, recipe)
    baked = estate.salt_run("image.bake", recipe)
    *below, own = baked.data["layers"]
    assert all(layer["cached"] for layer in below) and not own["cached"], baked.data["layers"]
    assert text in (estate.host.layers / own["digest"] / "fs" / CHANGED[recipe][1]).read_text()
    return baked


@contextmanager
def ready(recipe: str, estate: Estate) -> Iterator[None]:
    """Have what is below a recipe baked and its packages fetched; then remove the images that were made of it."""
    try:
        estate.salt_run("image.bake", recipe)
        yield
    finally:
        delete(estate, recipe)


site_ready = partial(ready, "site")
heavy_ready = partial(ready, "heavy")
upper_ready = partial(ready, "upper")


def delete(estate: Estate, recipe: str) -> None:
    """Remove all images of a recipe, and the layers that nobody else needs."""
    for image in estate.salt_run("image.list", recipe).data:
        estate.salt_run("image.delete", image, "with_channels=True")


# The states alone


def bare_salt_call(estate: Estate, recipe: str, below: list[str]) -> float:
    """Return the seconds of ``salt-call state.apply`` in a machine of the layers below, booted like that of a bake."""
    text = change(estate, recipe)
    with _machine(estate, f"{recipe}-bake", below) as machine:
        call = ["salt-call", "--retcode-passthrough", "--log-level=error", "state.apply", recipe]
        began = time.monotonic()
        done = machine.run(call, env=mirrors.environment())
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        assert text in machine.run(["cat", f"/{CHANGED[recipe][1]}"]).stdout
    return seconds


@contextmanager
def _machine(estate: Estate, bake_id: str, below: list[str]) -> Iterator[Machine]:
    opts, host = opts_of(estate), estate.host
    place = {"bridge": estate.net.bridge, "subnet": estate.net.subnet}
    order = {"bake_id": bake_id, "minion": machine_config(opts, network.gateway(estate.net)), **place}
    with ExitStack() as undo:
        salt = Minions(opts)
        undo.callback(salt.close)
        undo.callback(salt.forget, bake_id)
        salt.enrol(bake_id, commands.make_key(host, bake_id, public_key(opts)))
        workspace = undo.enter_context(host.workspace())
        (workspace / "fs").mkdir()
        mirrors.write_resolv_conf(workspace / "fs")
        ordered = states.prepare(host, workspace, order, layers.short_names(below))
        machine = undo.enter_context(machines.temporary(host, ordered))
        machines.wait_booted(machine)
        yield machine


def over_salt_call(recipe: str, estate: Estate) -> tuple[float, float]:
    """Bake one recipe on layers that are there, beside the same states in the same machine."""
    baked = bake_changed(estate, recipe)
    below = [layer["digest"] for layer in baked.data["layers"][:-1]]
    return baked.seconds, bare_salt_call(estate, recipe, below)


site_over_salt_call = partial(over_salt_call, "site")
heavy_over_salt_call = partial(over_salt_call, "heavy")
top_of_three = partial(over_salt_call, "upper")


# What has not changed


def unchanged(estate: Estate) -> tuple[float, float]:
    """Bake what has not changed, beside a ``salt-run`` that does nothing."""
    time.sleep(_SETTLED)
    estate.salt_run("image.bake", "web")  # what was changed last may be too young to be sure of
    baked = estate.salt_run("image.bake", "web")
    assert baked.data["cached"] and not baked.data["changed"], baked.data
    return baked.seconds, estate.salt_run("test.arg").seconds


# The root


def cold_base(estate: Estate) -> tuple[float, float]:
    """Bake a root that nobody has, beside mmdebstrap alone; the seconds in which Salt is put into it are left out."""
    delete(estate, "cold")
    baked = estate.salt_run("image.bake", "cold")
    root, minion = baked.data["layers"]
    assert not root["cached"] and not minion["cached"], baked.data["layers"]
    delete(estate, "cold")
    return baked.seconds - sum(minion["phases"].values()), _mmdebstrap(estate)


def _mmdebstrap(estate: Estate) -> float:
    source = yaml.safe_load((TREE / "recipes.yaml").read_text())["cold"]["from"]
    with estate.host.workspace() as place:
        command = ["mmdebstrap", "--variant=minbase", "--format=directory", "--mode=root", "--quiet"]
        command += [f"--include={','.join(source['packages'])}", *_cached(estate.home / "immutable/cache/bench")]
        command += [f"--aptopt={option}" for option in mirrors.apt_options()]
        lines = debian.sources(source["debian"], ["main"], None)
        began = time.monotonic()
        run(
            ["unshare", "--mount", "--propagation=private", *command, source["debian"], place / "fs", *lines],
            env={"TMPDIR": str(place)},
        )
        seconds = time.monotonic() - began
        assert (place / "fs/usr/bin/tree").exists()
    return seconds


def _cached(cache: Path) -> Iterator[str]:
    """Yield the options by which packages and their lists are kept in a folder: what a bake's cache does for it."""
    for inside in ("var/cache/apt/archives", "var/lib/apt/lists"):
        kept = cache / inside
        (kept / "partial").mkdir(parents=True, exist_ok=True)
        yield f'--setup-hook=mkdir -p "$1"/{inside}; mount --bind {shlex.quote(str(kept))} "$1"/{inside}'
        yield f'--customize-hook=umount "$1"/{inside}'
    yield "--skip=download/empty,essential/unlink,cleanup/apt/cache"


@contextmanager
def cold_ready(estate: Estate) -> Iterator[None]:
    """Have the packages of both sides fetched."""
    try:
        cold_base(estate)
        yield
    finally:
        delete(estate, "cold")


# Disk


def ten_images(estate: Estate) -> tuple[float, float]:
    """Return the megabytes on disk of ten images that differ in their layer of states, and of one of them."""
    baked = [bake_changed(estate, "site").data for _ in range(10)]
    assert len({each["digest"] for each in baked}) == 10
    return _megabytes(estate, baked), _megabytes(estate, baked[:1])


def _megabytes(estate: Estate, baked: Sequence[dict[str, Any]]) -> float:
    """Return what the layers and seals of some images take, each counted once."""
    places = {estate.host.layers / layer["digest"] for each in baked for layer in each["layers"]}
    places |= {estate.host.images / each["digest"] for each in baked}
    return sum(dict(blocks for place in places for blocks in _blocks(place)).values()) / 1e6


def _blocks(place: Path) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield what identifies each file below, and the bytes that its blocks take: a link counts once."""
    for folder, folders, files in os.walk(place):
        for name in (".", *folders, *files):
            with suppress(FileNotFoundError):
                found = os.lstat(os.path.join(folder, name))
                yield (found.st_dev, found.st_ino), found.st_blocks * 512
