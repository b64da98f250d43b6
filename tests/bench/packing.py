"""What a bake costs against Packer: its docker builder and salt-masterless provisioner, from Debian or from a root with
Salt.

Docker is our own, with a data root of its own, and ends with the figure. Its image is made of the layers that ours
starts from, so that both have the same Debian and the same Salt. From Debian, each build installs Salt by uv from our
cache, which is the quickest that there is: salt-masterless itself would fetch a script that fetches packages. Packer as
it comes fetches lists and packages with each build; ``cached`` gives it those of our cache, which it has to be told for
each recipe.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import salt.version

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.sources import debian
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.builder.sources.uv import find_uv
from saltext.immutable.host import remove
from saltext.immutable.images import layers
from saltext.immutable.machines import overlay
from tests.bench import baking
from tests.support.estate import Estate, wait_for

_IMAGE = "immutable-bench"
_ROOT = "/opt/build"
"""Where a build from Debian sees uv and its cache."""
_UV = f"UV_CACHE_DIR={_ROOT}/cache UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never {_ROOT}/uv/uv"
_INSTALL = (
    f"{_UV} venv --quiet --python /usr/bin/python3 {VENV} && "
    f"{_UV} pip install --quiet --python {VENV}/bin/python salt=={salt.version.__version__}"
)
Base = Literal["debian", "prepared", "cached"]
"""Where Packer starts: from Debian, with Salt in its image, and with our package cache besides."""


class Missing(Exception):
    """A program that a figure needs is not on this host."""


@contextmanager
def ready(recipe: str, base: Base, estate: Estate) -> Iterator[None]:
    """Have a Docker that has the base, and the recipe's packages fetched."""
    for program in ("packer", "dockerd", "docker"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
    with baking.ready(recipe, estate), _docker(_place(estate)):
        _import(estate, base)
        yield


def over_packer(recipe: str, base: Base, estate: Estate) -> tuple[float, float]:
    """Bake one recipe on layers that are there, beside Packer with the same states on an image that is there."""
    return baking.bake_changed(estate, recipe).seconds, _packer(estate, recipe, base)


# Docker


def _place(estate: Estate) -> Path:
    return estate.home / "docker"


def _host(place: Path) -> str:
    return f"unix://{place}/sock"


@contextmanager
def _docker(place: Path) -> Iterator[None]:
    """Run a Docker of our own, end it, and remove all of it."""
    with ExitStack() as undo:
        remove(place)
        place.mkdir()
        undo.callback(remove, place)
        # In a mount namespace of its own: what it leaves mounted (the network that a container shared) ends with it.
        words = ["unshare", "--mount", "--propagation=private", "dockerd", "--pidfile", place / "pid"]
        words += ["--data-root", place / "data", "--exec-root", place / "run"]
        words += ["--host", _host(place), "--iptables=false", "--ip6tables=false", "--bridge=none"]
        log = undo.enter_context((place / "log").open("wb"))
        process = undo.enter_context(subprocess.Popen(words, stdout=log, stderr=log))
        undo.callback(process.terminate)
        wait_for(lambda: _asked(place, "info").returncode == 0, 60, 0.5)
        undo.callback(_end_containers, place)
        yield


def _asked(place: Path, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "--host", _host(place), *words], check=False, capture_output=True, text=True, **how
    )


def _end_containers(place: Path) -> None:
    """End what Packer left: what it was killed over would keep its mounts."""
    left = _asked(place, "ps", "--all", "--quiet").stdout.split()
    if left:
        _asked(place, "rm", "--force", *left)


def _import(estate: Estate, base: Base) -> None:
    """Make an image of the layers that the recipes start from: without a seal, as it is changed."""
    below = [layer["digest"] for layer in estate.salt_run("image.bake", "base").data["layers"]]
    below = below[:1] if base == "debian" else below
    with estate.host.workspace() as place:
        for folder in ("root", "empty"):  # a single layer cannot be mounted
            (place / folder).mkdir()
        # In a mount namespace of its own: the mount ends with it.
        mount = 'mount -t overlay overlay -o "$1" "$2" && exec tar --create --xattrs --numeric-owner --directory "$2" .'
        script = ["unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh"]
        words = [*script, overlay.options((*layers.short_names(below), str(place / "empty"))), str(place / "root")]
        with subprocess.Popen(words, cwd=estate.host.l, stdout=subprocess.PIPE) as tar:
            done = _asked(_place(estate), "import", "-", _IMAGE, stdin=tar.stdout)
        assert (tar.returncode, done.returncode) == (0, 0), done.stderr


# Packer


def _packer(estate: Estate, recipe: str, base: Base) -> float:
    """Return the seconds of ``packer build``."""
    text, docker = baking.change(estate, recipe), _place(estate)
    with tempfile.TemporaryDirectory(dir=docker) as home:
        place = Path(home)
        shutil.copytree(estate.states / recipe, place / "states" / recipe)
        (place / "template.json").write_text(json.dumps(_template(estate, recipe, place, base), indent=1))
        began = time.monotonic()
        done = subprocess.run(
            ["packer", "build", "-machine-readable", "template.json"],
            cwd=place,
            env=_environment(docker, place),
            check=False,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    _check(docker, recipe, text)
    return seconds


def _environment(docker: Path, place: Path) -> dict[str, str]:
    own = {"DOCKER_HOST": _host(docker), "HOME": str(place), "TMPDIR": str(place), "PACKER_CACHE_DIR": str(place)}
    return {**os.environ, **own, "CHECKPOINT_DISABLE": "1"}  # it would ask its maker for news


def _template(estate: Estate, recipe: str, place: Path, base: Base) -> Mapping[str, Any]:
    # What a bake is lent: the host's way to its mirrors.
    lent = mirrors.apt_config(place) | (debian.package_cache(estate.host, f"{recipe}-bake") if base == "cached" else {})
    variables = [word for name, value in mirrors.environment().items() for word in ("--env", f"{name}={value}")]
    provisioners: list[dict[str, Any]] = []
    if base == "debian":
        (place / "uv").mkdir()
        shutil.copy2(find_uv(), place / "uv/uv")
        lent |= {f"{_ROOT}/uv": str(place / "uv"), f"{_ROOT}/cache": str(estate.host.cache / "uv")}
        provisioners.append({"type": "shell", "inline": [_INSTALL]})
    docker = {
        "type": "docker",
        "image": _IMAGE,
        "pull": False,
        "commit": True,
        "volumes": {there: inside for inside, there in lent.items()},
        "run_command": ["-d", "-i", "-t", "--network=host", *variables, "--entrypoint=/bin/sh", "--", "{{.Image}}"],
    }
    masterless = {
        "type": "salt-masterless",
        "skip_bootstrap": True,
        "salt_bin_dir": f"{VENV}/bin",
        "disable_sudo": True,
        "local_state_tree": str(place / "states"),
        "custom_state": recipe,
    }
    return {"builders": [docker], "provisioners": [*provisioners, masterless]}


def _check(docker: Path, recipe: str, text: str) -> None:
    """Hold the image that was made to what was to be made, and remove it."""
    newest = _asked(docker, "images", "--quiet", "--no-trunc").stdout.split()[0]
    made = f"/{baking.CHANGED[recipe][1]}"
    shown = _asked(docker, "run", "--rm", "--network=none", "--entrypoint=cat", newest, made)
    assert text in shown.stdout, shown
    _asked(docker, "image", "rm", "--force", newest)
