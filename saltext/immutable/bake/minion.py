"""The layer with Salt and this pack: what makes a root a minion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import outside, pack, scrub
from saltext.immutable.bake.uv import find_uv
from saltext.immutable.host import Host, tail
from saltext.immutable.machines.machine import Machine
from saltext.immutable.seal import MACHINE_PATH

VENV = "/opt/salt"
EXTENSION_MODULES = "usr/lib/immutable/extension_modules"
_INSIDE = "/run/immutable"
# Grains that a pillar or a top file may reasonably ask for and that are the same on each machine of an image.
_STABLE_GRAINS = (
    "cpuarch", "init", "kernel", "lsb_distrib_codename", "lsb_distrib_id", "lsb_distrib_release", "os", "os_family",
    "osarch", "oscodename", "osfinger", "osfullname", "osmajorrelease", "osrelease", "osrelease_info", "pythonversion",
    "saltversion", "saltversioninfo", "virtual", "virtual_subtype",
)  # fmt: skip


def prepare(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return the machine (no init, only namespaces) in which `install` works."""
    inside = workspace / "inside"
    inside.mkdir()
    pack.wheel(inside)
    shutil.copy2(find_uv(), inside / "uv")
    if bundle := outside.ca_bundle():
        shutil.copyfile(bundle, inside / "ca-certificates.crt")
    cache = host.cache / "uv"
    cache.mkdir(exist_ok=True)
    return Machine(
        minion_id=f"bake-{workspace.name}",
        image="",
        lower=lower,
        minion={},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=False,
        upper=str(workspace / "fs"),
        binds={_INSIDE: str(inside), f"{_INSIDE}-cache": str(cache)},
        boot=False,
    )


def install(machine: Machine, order: Mapping[str, Any]) -> dict[str, Any]:
    """Install Salt (``order['requirement']``) and the pack, and return the grains of such a minion."""
    wheel = f"{_INSIDE}/saltext_immutable-{order['version']}-py3-none-any.whl"
    uv = f"{_INSIDE}/uv"
    _must(machine, ["/usr/bin/test", "-x", "/usr/bin/python3"], "the image has no /usr/bin/python3; add python3 to `packages`")
    _must(machine, [uv, "venv", "--quiet", "--python", "/usr/bin/python3", VENV], "no virtual environment could be made")
    python = f"{VENV}/bin/python"
    install_ = [uv, "pip", "install", "--quiet", "--python", python, order["requirement"], wheel]
    _must(machine, install_, f"{order['requirement']} could not be installed")
    compile_ = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", f"{VENV}/lib"]
    machine.run(compile_)  # a file that does not compile is not ours to judge
    grains = json.loads(_must(machine, [f"{VENV}/bin/salt-call", "--local", "--out=json", "grains.items"], "Salt does not run"))
    return {name: value for name, value in grains["local"].items() if name in _STABLE_GRAINS}


def _must(machine: Machine, command: list[str], complaint: str) -> str:
    env = {
        "UV_CACHE_DIR": f"{_INSIDE}-cache",
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        **outside.environment(),
    }
    done = machine.run(command, env=env)
    if done.returncode:
        raise CommandExecutionError(f"minion layer: {complaint}\n{tail(done.stderr + done.stdout)}")
    return done.stdout


def finish(tree: Path) -> None:
    """Add what makes it a service, and scrub."""
    source = files("saltext.immutable.bake") / "files"
    _put(tree, "lib/systemd/system/salt-minion.service", source.joinpath("salt-minion.service").read_text())
    _put(tree, "etc/salt/minion.d/zz-immutable.conf", source.joinpath("zz-immutable.conf").read_text())
    _put(tree, str(MACHINE_PATH).lstrip("/"), "")  # a machine's own is mounted over it
    _link(tree, "etc/systemd/system/multi-user.target.wants/salt-minion.service", "/lib/systemd/system/salt-minion.service")
    for command in ("salt-call", "salt-minion"):
        _link(tree, f"usr/bin/{command}", f"{VENV}/bin/{command}")
    (tree / EXTENSION_MODULES).mkdir(parents=True)
    scrub.scrub(tree)


def _put(tree: Path, name: str, text: str) -> None:
    place = _real(tree, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def _link(tree: Path, name: str, target: str) -> None:
    place = _real(tree, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _real(tree: Path, name: str) -> Path:
    """/lib is a link to usr/lib in the layer below; a directory in this layer would hide it."""
    return tree / ("usr/" + name if name.startswith("lib/") else name)
