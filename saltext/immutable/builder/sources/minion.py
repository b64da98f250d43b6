"""The minion layer: install Salt and this pack in a root."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.sandbox import sandbox
from saltext.immutable.builder.sources import wheel as pack
from saltext.immutable.builder.sources.debian import package_cache
from saltext.immutable.builder.sources.uv import find_uv
from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host, tail
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine
from saltext.immutable.machines.host_needs import FIREWALLS

VENV = "/opt/salt"
EXTENSION_MODULES = "usr/lib/immutable/extension_modules"
_MOUNTED = "/run/immutable"
"""Path in the machine of a folder with uv and our wheel."""
_TOOLCHAIN = ("--no-install-recommends", "gcc", "libc6-dev", "python3-dev")
_COMPILE = f"{VENV}/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash {VENV}/lib"
_UV_CACHE_INFO = "uv_cache.json"
"""A file in which uv records the time of a local wheel; removed, so that two bakes give the same layer."""
# Our units -> the units that want them. This is what `systemctl enable` does.
_UNITS = {
    "salt-minion.service": ("multi-user.target",),
    "immutable-launch.service": ("multi-user.target",),
    "immutable-mine.service": (),
    "immutable-mounts.service": ("sysinit.target",),
    "immutable-mine.timer": ("timers.target",),
    "immutable-ssh-host-keys.service": ("ssh.service", "ssh.socket"),
}

_MAY_LOAD_RULES = "[Unit]\nConditionCapability=CAP_NET_ADMIN\n"
"""For services of firewalls: a machine that may load no rules leaves them out, and they do not fail."""


def build(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> dict[str, Any]:
    """Install Salt (``order['requirement']``) and this pack in a machine, and return the grains of its minion.

    A Python package without a wheel for the image's Python (timelib, for example) is compiled in another machine, which
    is removed afterwards: the image gets no compiler. ``order``: requirement, version, bridge, subnet, offline.
    ``lower``: short names of the layers below. Raises CommandExecutionError where Salt cannot be installed or does not
    run.
    """
    with machines.temporary(host, _machine(host, workspace, order, lower)) as machine:
        if (failed := _install(machine, order)).returncode:
            _require_apt(machine, failed)
            _compile(host, order, lower)
            _require_success(_install(machine, order), f"{order['requirement']} could not be installed")
        machine.run(_COMPILE.split(), env={"PYTHONHASHSEED": "0"})  # some packages have files that do not compile
        done = machine.run([f"{VENV}/bin/salt-call", "--local", "--out=json", "grains.items"])
        grains = _require_success(done, "Salt does not run in this image")
    return dict(json.loads(grains)["local"])


def _require_apt(machine: Machine, failed: CompletedProcess[str]) -> None:
    """Raise CommandExecutionError where the image has no apt-get, with which a compiler could be installed."""
    if machine.run(["/usr/bin/test", "-x", "/usr/bin/apt-get"]).returncode:
        problem = "Salt could not be installed without a compiler, and the root has no apt-get; put gcc into the root"
        _require_success(failed, problem)


def _compile(host: Host, order: Mapping[str, Any], lower: tuple[str, ...]) -> None:
    """Build the missing wheels in a machine with a compiler, so that they are in uv's cache."""
    with host.lock("toolchain", wait=1800), host.workspace() as workspace:
        (workspace / "fs").mkdir()
        mirrors.write_resolv_conf(workspace / "fs")
        description = _machine(host, workspace, order, lower)
        binds = {**description.binds, **package_cache(host, "toolchain")}
        apt_config = mirrors.apt_config(workspace, bool(order.get("offline")))
        with machines.temporary(host, replace(description, binds=binds, files=apt_config)) as machine:
            updated = machine.run(["apt-get", "--quiet", "update"], env=_env(order))
            _require_success(updated, "apt-get update failed, so no compiler can be installed")
            installed = machine.run(["apt-get", "--quiet", "--yes", "install", *_TOOLCHAIN], env=_env(order))
            _require_success(installed, f"the compiler ({', '.join(_TOOLCHAIN[1:])}) could not be installed")
            _require_success(_install(machine, order), f"{order['requirement']} could not be installed")


def _machine(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return the description of a machine that has uv, its cache and our wheel mounted."""
    folder, cache = workspace / "inside", host.cache / "uv"
    folder.mkdir()
    cache.mkdir(exist_ok=True)
    pack.wheel(folder)
    shutil.copy2(find_uv(), folder / "uv")
    if bundle := mirrors.ca_bundle():
        shutil.copyfile(bundle, folder / Path(mirrors.CA_BUNDLE).name)
    return sandbox(workspace, order, lower, binds={_MOUNTED: str(folder), f"{_MOUNTED}-cache": str(cache)})


def _install(machine: Machine, order: Mapping[str, Any]) -> CompletedProcess[str]:
    uv, wheel = f"{_MOUNTED}/uv", f"{_MOUNTED}/saltext_immutable-{order['version']}-py3-none-any.whl"
    if machine.run(["/usr/bin/test", "-x", "/usr/bin/python3"]).returncode:
        raise CommandExecutionError("the image has no /usr/bin/python3, which Salt needs; add python3 to from:packages")
    venv = [uv, "venv", "--quiet", "--allow-existing", "--python", "/usr/bin/python3", VENV]
    _require_success(machine.run(venv, env=_env(order)), "the virtual environment could not be made")
    into = ["--python", f"{VENV}/bin/python"]
    # pip: with it pip.installed without bin_env installs what custom modules import, as in any other minion.
    install = [uv, "pip", "install", "--quiet", *into, order["requirement"], "pip", wheel]
    return machine.run(install, env=_env(order))


def _env(order: Mapping[str, Any]) -> dict[str, str]:
    return {
        "DEBIAN_FRONTEND": "noninteractive",
        "UV_CACHE_DIR": f"{_MOUNTED}-cache",
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        **({"UV_OFFLINE": "1"} if order.get("offline") else {}),
        **mirrors.environment(),
    }


def _require_success(done: CompletedProcess[str], problem: str) -> str:
    """Return the standard output of a command; raise CommandExecutionError if it failed."""
    if done.returncode:
        output = tail(done.stderr + done.stdout)
        raise CommandExecutionError(f"minion layer: {problem}; fix what it says, and bake again:\n{output}")
    return done.stdout


def finish(tree: Path) -> None:
    """Add our units and minion config to the tree of the layer, and links to Salt's commands."""
    source = files("saltext.immutable.guard") / "files"
    for unit, wanted_by in _UNITS.items():
        _write(tree, f"lib/systemd/system/{unit}", source.joinpath(unit).read_text())
        for other in wanted_by:
            _link(tree, f"etc/systemd/system/{other}.wants/{unit}", f"/lib/systemd/system/{unit}")
    for unit in FIREWALLS:
        _write(tree, f"lib/systemd/system/{unit}.d/immutable.conf", _MAY_LOAD_RULES)
    _write(tree, "etc/salt/minion.d/zz-immutable.conf", source.joinpath("zz-immutable.conf").read_text())
    _write(tree, str(MACHINE_PATH).lstrip("/"), "")  # the file of each machine is mounted over it
    for command in ("salt-call", "salt-minion"):
        _link(tree, f"usr/bin/{command}", f"{VENV}/bin/{command}")
    (tree / EXTENSION_MODULES).mkdir(parents=True)
    for file in (tree / VENV.lstrip("/")).glob(f"lib/python*/site-packages/*.dist-info/{_UV_CACHE_INFO}"):
        _remove_from_distribution(file)


def _remove_from_distribution(file: Path) -> None:
    """Remove a file of a Python distribution, and its line in RECORD."""
    record = file.with_name("RECORD")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if f"/{file.name}," not in line))
    file.unlink()


def _write(tree: Path, name: str, text: str) -> None:
    file = _path(tree, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _link(tree: Path, name: str, target: str) -> None:
    link = _path(tree, name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _path(tree: Path, name: str) -> Path:
    """Return the path in the tree, usr/lib for lib: the layer below has a link /lib, which a directory would hide."""
    return tree / ("usr/" + name if name.startswith("lib/") else name)
