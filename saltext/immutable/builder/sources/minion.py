"""The layer with Salt and this pack: what makes a root a minion."""

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
from saltext.immutable.machines.machine import Machine

VENV = "/opt/salt"
EXTENSION_MODULES = "usr/lib/immutable/extension_modules"
_INSIDE = "/run/immutable"
_TOOLCHAIN = ("--no-install-recommends", "gcc", "libc6-dev", "python3-dev")
_COMPILE = f"{VENV}/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash {VENV}/lib"
_WHEN = "uv_cache.json"
"""In which uv writes when a wheel was made, ours for one."""
# Our units, and what wants them: `systemctl enable` of a layer that no systemd runs in.
_UNITS = {
    "salt-minion.service": ("multi-user.target",),
    "immutable-launch.service": ("multi-user.target",),
    "immutable-mine.service": (),
    "immutable-mine.timer": ("timers.target",),
    "immutable-ssh-host-keys.service": ("ssh.service", "ssh.socket"),
}


def build(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> dict[str, Any]:
    """Install Salt (``order['requirement']``) and this pack, and return the grains of such a minion.

    What has no wheel for the image's Python (timelib, for one) is compiled in a machine of its own, which is thrown
    away: the image gets no compiler.
    """
    plain = _machine(host, workspace, order, lower)
    with machines.temporary(host, plain) as machine:
        if (failed := _install(machine, order)).returncode:
            _require_apt(machine, failed)
            _compile(host, order, lower)
            _checked(_install(machine, order), f"{order['requirement']} could not be installed")
        machine.run(_COMPILE.split(), env={"PYTHONHASHSEED": "0"})  # a file that does not compile is not ours to judge
        asked = machine.run([f"{VENV}/bin/salt-call", "--local", "--out=json", "grains.items"])
        grains = _checked(asked, "Salt does not run in this image")
    return dict(json.loads(grains)["local"])


def _require_apt(machine: Machine, failed: CompletedProcess[str]) -> None:
    """Raise unless a compiler can be had where Salt could not be installed without one."""
    if machine.run(["/usr/bin/test", "-x", "/usr/bin/apt-get"]).returncode:
        complaint = "Salt could not be installed, and without apt-get no compiler can be had; put gcc into the root"
        _checked(failed, complaint)


def _compile(host: Host, order: Mapping[str, Any], lower: tuple[str, ...]) -> None:
    """Fill uv's cache with the wheels that have to be built."""
    with host.lock("toolchain", wait=1800), host.workspace() as aside:
        (aside / "fs").mkdir()
        mirrors.write_resolv_conf(aside / "fs")
        plain = _machine(host, aside, order, lower)
        binds = {**plain.binds, **package_cache(host, "toolchain")}
        lent = mirrors.apt_config(aside, bool(order.get("offline")))
        with machines.temporary(host, replace(plain, binds=binds, files=lent)) as machine:
            _checked(machine.run(["apt-get", "--quiet", "update"], env=_env(order)), "no package lists")
            got = machine.run(["apt-get", "--quiet", "--yes", "install", *_TOOLCHAIN], env=_env(order))
            _checked(got, "no compiler")
            _checked(_install(machine, order), f"{order['requirement']} could not be installed")


def _machine(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return a sandbox with uv, its cache and our wheel inside."""
    inside, cache = workspace / "inside", host.cache / "uv"
    inside.mkdir()
    cache.mkdir(exist_ok=True)
    pack.wheel(inside)
    shutil.copy2(find_uv(), inside / "uv")
    if bundle := mirrors.ca_bundle():
        shutil.copyfile(bundle, inside / Path(mirrors.CA_BUNDLE).name)
    return sandbox(workspace, order, lower, binds={_INSIDE: str(inside), f"{_INSIDE}-cache": str(cache)})


def _install(machine: Machine, order: Mapping[str, Any]) -> CompletedProcess[str]:
    uv, wheel = f"{_INSIDE}/uv", f"{_INSIDE}/saltext_immutable-{order['version']}-py3-none-any.whl"
    if machine.run(["/usr/bin/test", "-x", "/usr/bin/python3"]).returncode:
        raise CommandExecutionError("the image has no /usr/bin/python3, which Salt needs; add python3 to `packages`")
    venv = [uv, "venv", "--quiet", "--allow-existing", "--python", "/usr/bin/python3", VENV]
    made = machine.run(venv, env=_env(order))
    _checked(made, "no virtual environment could be made")
    install = [uv, "pip", "install", "--quiet", "--python", f"{VENV}/bin/python", order["requirement"], wheel]
    return machine.run(install, env=_env(order))


def _env(order: Mapping[str, Any]) -> dict[str, str]:
    return {
        "DEBIAN_FRONTEND": "noninteractive",
        "UV_CACHE_DIR": f"{_INSIDE}-cache",
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        **({"UV_OFFLINE": "1"} if order.get("offline") else {}),
        **mirrors.environment(),
    }


def _checked(done: CompletedProcess[str], complaint: str) -> str:
    if done.returncode:
        raise CommandExecutionError(f"minion layer: {complaint}\n{tail(done.stderr + done.stdout)}")
    return done.stdout


def finish(tree: Path) -> None:
    """Add what makes it a service."""
    source = files("saltext.immutable.guard") / "files"
    for unit, wanted_by in _UNITS.items():
        _put(tree, f"lib/systemd/system/{unit}", source.joinpath(unit).read_text())
        for other in wanted_by:
            _link(tree, f"etc/systemd/system/{other}.wants/{unit}", f"/lib/systemd/system/{unit}")
    _put(tree, "etc/salt/minion.d/zz-immutable.conf", source.joinpath("zz-immutable.conf").read_text())
    _put(tree, str(MACHINE_PATH).lstrip("/"), "")  # a machine's own is mounted over it
    for command in ("salt-call", "salt-minion"):
        _link(tree, f"usr/bin/{command}", f"{VENV}/bin/{command}")
    (tree / EXTENSION_MODULES).mkdir(parents=True)
    for file in (tree / VENV.lstrip("/")).glob(f"lib/python*/site-packages/*.dist-info/{_WHEN}"):
        _forget(file)


def _forget(file: Path) -> None:
    """Remove a file of a distribution, and from the list of its files."""
    record = file.with_name("RECORD")
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if f"/{file.name}," not in line))
    file.unlink()


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
