"""The layer that a recipe's states make: a booted machine on a writable overlay, and `salt-call` against the master."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import salt.output
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import debian, outside, scrub
from saltext.immutable.bake.minion import EXTENSION_MODULES
from saltext.immutable.host import Host, remove, tail
from saltext.immutable.machines.machine import Machine

_PKI = "/run/immutable-pki"
_CA = "ca-certificates.crt"
# Kinds of custom modules that an image never keeps: a synced executor would outrank the guard's own.
_NEVER_KEPT = ("executors",)
_EXTMODS = "var/cache/salt/minion/extmods"
# States may want the minion to run and to be enabled; what runs in a bake is only its name.
_STAND_IN = "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sleep infinity\n"
_DROP_IN = "/run/systemd/system/salt-minion.service.d/bake.conf"


def prepare(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return the machine in which the states are applied.

    ``order`` has bake_id, key (priv, pub), minion (its config: master, ports), grains, bridge, subnet.
    """
    tree = workspace / "fs"
    if order["grains"]:
        _write(tree / "etc/salt/minion.d/zz-grains.conf", json.dumps({"grains": order["grains"]}, indent=1))
    _write(workspace / "stand-in.conf", _STAND_IN)
    given = {_DROP_IN: str(workspace / "stand-in.conf")}
    if bundle := outside.ca_bundle():
        shutil.copyfile(bundle, workspace / _CA)
        given[outside.CA_BUNDLE] = str(workspace / _CA)
    return Machine(
        minion_id=order["bake_id"],
        image="",
        lower=lower,
        minion={**order["minion"], "id": order["bake_id"], "pki_dir": _PKI},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=False,
        upper=str(tree),
        binds=debian.package_cache(host, order["bake_id"]) | {_PKI: str(_key(workspace, order["key"]))},
        files=given | outside.lend_apt(workspace),
    )


def _key(workspace: Path, key: Mapping[str, str]) -> Path:
    """Lay out a minion's key directory, outside of the tree that becomes the layer."""
    pki = workspace / "pki"
    pki.mkdir(mode=0o700)
    for name, text in (("minion.pem", key["priv"]), ("minion.pub", key["pub"])):
        (pki / name).touch(mode=0o400)
        (pki / name).write_text(text)
    return pki


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def apply(machine: Machine, order: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the states and return a summary; a state that fails raises with its output."""
    if order["sync"]:
        _salt_call(machine, ["saltutil.sync_all"])
    function = ["state.highstate"] if order["states"] == "highstate" else ["state.apply", ",".join(order["states"])]
    options = [f"{name}={order[name]}" for name in ("saltenv", "pillarenv") if order[name]]
    done = _salt_call(machine, [*function, *options])
    result = _parse(done)
    if not isinstance(result, dict) or not result:
        raise CommandExecutionError(f"the states of {order['bake_id']} did not run:\n{_reasons(result, done)}")
    failed = {name: state for name, state in result.items() if not state["result"]}
    if failed or done.returncode:
        many = f"{len(failed)} of {len(result)} states failed in the bake"
        raise CommandExecutionError(f"{many}:\n{_shown(order, failed)}")
    return {"states": len(result), "changed": sum(bool(state["changes"]) for state in result.values())}


def _salt_call(machine: Machine, words: list[str]) -> CompletedProcess[str]:
    call = ["salt-call", "--retcode-passthrough", "--out=json", "--log-level=error", *words]
    return machine.run(call, env=outside.environment())


def _parse(done: CompletedProcess[str]) -> Any:
    """Return what salt-call said, from the first line that is JSON on."""
    start = done.stdout.find("{")
    try:
        return json.loads(done.stdout[start:])["local"] if start >= 0 else None
    except (ValueError, KeyError):
        return None


def _reasons(result: Any, done: CompletedProcess[str]) -> str:
    reasons = "\n".join(map(str, result)) if isinstance(result, list) else ""
    return f"{reasons}\n{tail(done.stdout if result is None else '')}\n{tail(done.stderr)}".strip()


def _shown(order: Mapping[str, Any], failed: Mapping[str, Any]) -> str:
    opts = {"color": False, "state_verbose": True, "state_output": "full", "extension_modules": ""}
    text = salt.output.out_format({order["bake_id"]: failed}, "highstate", opts)
    return str(text)


def stop(machine: Machine, within: float = 90.0) -> None:
    """Shut the machine down in order, so that its services write what they hold."""
    machine.power_off()
    deadline = time.monotonic() + within
    while machine.running:
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"{machine.minion_id} did not shut down within {within:.0f} s after its states")
        time.sleep(0.02)


def finish(tree: Path) -> None:
    """Keep the synced modules where they are read-only, take the bake's own traces out, and scrub."""
    synced = tree / _EXTMODS
    if synced.is_dir():
        for kind in _NEVER_KEPT:
            remove(synced / kind)
        remove(tree / EXTENSION_MODULES)
        (tree / EXTENSION_MODULES).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(synced, tree / EXTENSION_MODULES, ignore=shutil.ignore_patterns("__pycache__"))
    remove(tree / outside.APT_CONF)
    scrub.scrub(tree)

