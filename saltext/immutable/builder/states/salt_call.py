"""The layer that a recipe's states make: a booted machine on a writable overlay, and `salt-call` against the master."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import salt.output
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors, offline
from saltext.immutable.builder.sources import debian
from saltext.immutable.builder.sources.minion import EXTENSION_MODULES, VENV
from saltext.immutable.builder.states import chroot, minion_config
from saltext.immutable.builder.states.tracing import HASH_KEY
from saltext.immutable.host import Host, remove, tail
from saltext.immutable.machines.machine import Machine

_PKI = "/run/immutable-pki"
TRACE = "/run/immutable-trace"
"""Where it is written down what the states asked for."""
_TIMED_OUT = 124
"""timeout(1)"""
# Kinds of custom modules that an image never keeps: a synced executor would outrank the guard's own.
_NEVER_KEPT = ("executors",)
_EXTMODS = "var/cache/salt/minion/extmods"
# States may want the minion to run and to be enabled; what runs in a bake is only its name.
_STAND_IN = "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sleep infinity\n"
_DROP_IN = "/run/systemd/system/salt-minion.service.d/bake.conf"
# Without an init a package would start its daemon by hand; invoke-rc.d asks this first.
_POLICY = "/usr/sbin/policy-rc.d"
_START_NOTHING = "#!/bin/sh\nexit 101\n"


def make_key(host: Host, bake_id: str) -> str:
    """Make the key pair of a bake on this host, where it stays, and return the public half (PEM)."""
    pki = host.pki / bake_id
    remove(pki)
    pki.mkdir(mode=0o700, parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, text in (("minion.pem", private), ("minion.pub", public)):
        (pki / name).touch(mode=0o400)
        (pki / name).write_bytes(text)
    return public.decode()


def prepare(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return the machine in which the states are applied.

    ``order`` has bake_id (whose key `make_key` made), minion (its config: master, ports, grains), bridge, subnet, and
    chroot: whether it has no init.
    """
    chrooted = bool(order.get("chroot"))
    lent, text = (_POLICY, _START_NOTHING) if chrooted else (_DROP_IN, _STAND_IN)
    (workspace / "lent").write_text(text)
    (workspace / "lent").chmod(0o755)
    return Machine(
        minion_id=order["bake_id"],
        image="",
        lower=lower,
        minion={**order["minion"], "id": order["bake_id"], "pki_dir": _PKI, "immutable_bake": True},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=False,
        upper=str(workspace / "fs"),
        binds=debian.package_cache(host, order["bake_id"]) | {_PKI: str(host.pki / order["bake_id"])},
        files={lent: str(workspace / "lent"), **mirrors.apt_config(workspace, bool(order.get("offline")))},
        boot=not chrooted,
        route=offline.route(order),
    )


def sync(machine: Machine, order: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the tree's own modules, and return the grains that the minion has with them."""
    _salt_call(machine, ["saltutil.sync_all"], order["within"])
    grains = _parse(_salt_call(machine, ["grains.items"], order["within"]))
    return grains if isinstance(grains, dict) else {}


def apply(machine: Machine, order: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Apply the states; return the names of their SLS, and what a chroot lets nobody be sure of.

    A state that fails raises with its output.
    """
    function = ["state.highstate"] if order["states"] == "highstate" else ["state.apply", ",".join(order["states"])]
    options = [f"{name}={order[name]}" for name in ("saltenv", "pillarenv") if order[name]]
    call, within = [*function, *options], order["within"]
    done = _salt_call(machine, call, within, watched=_watched(order))
    if done.returncode and trace(machine) is None:  # the image's Salt or pack cannot be watched: nothing was begun
        done = _salt_call(machine, call, within)
    result = _parse(done)
    if not isinstance(result, dict) or not result:
        raise CommandExecutionError(f"the states of {order['bake_id']} did not run:\n{_reasons(result, done)}")
    failed = {name: state for name, state in result.items() if not state["result"]}
    if failed or done.returncode:
        many = f"{len(failed)} of {len(result)} states failed in the bake"
        raise CommandExecutionError(f"{many}:\n{_shown(order, failed)}")
    sls = sorted({str(state["__sls__"]) for state in result.values() if "__sls__" in state})
    return sls, chroot.doubts(result) if order.get("chroot") else []


def _watched(order: Mapping[str, Any]) -> list[str]:
    """Return the words before ``salt-call`` that have it write down what it asks for."""
    module = [f"{VENV}/bin/python", "-m", "saltext.immutable.builder.states.tracing", TRACE]
    return ["env", f"{HASH_KEY}={order['hash_key']}", *module, order["minion"]["master"]]


def trace(machine: Machine) -> list[list[Any]] | None:
    """Return what the states asked for, as `tracing` tells it; None if nobody could look on."""
    done = machine.run(["cat", TRACE])
    return None if done.returncode else [list(json.loads(line)) for line in done.stdout.splitlines()]


def _salt_call(
    machine: Machine, words: list[str], within: float, watched: Sequence[str] = ()
) -> CompletedProcess[str]:
    program = f"{VENV}/bin/salt-call" if watched else "salt-call"
    call = [*watched, program, "--retcode-passthrough", "--out=json", "--log-level=error", *words]
    done = machine.run(["timeout", "--kill-after=10", f"{within:.0f}", *call], env=mirrors.environment())
    if done.returncode == _TIMED_OUT:
        raise CommandExecutionError(f"{words[0]} did not end within {within:.0f} s; set bake_within in the recipe")
    return done


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
    """Keep the synced modules where they are read-only, and take the bake's own traces out."""
    minion_config.refuse(tree)
    synced = tree / _EXTMODS
    if synced.is_dir():
        for kind in _NEVER_KEPT:
            remove(synced / kind)
        remove(tree / EXTENSION_MODULES)
        (tree / EXTENSION_MODULES).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(synced, tree / EXTENSION_MODULES, ignore=shutil.ignore_patterns("__pycache__"))
    for lent in (mirrors.APT_CONF, _POLICY.lstrip("/")):  # where it was shown, an empty file is left
        if (tree / lent).is_file() and not (tree / lent).stat().st_size:
            (tree / lent).unlink()

