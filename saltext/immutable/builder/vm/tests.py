"""Run the tests of an image in a machine that boots from its disk (``tests: {vm: [...]}`` of a recipe)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from saltext.immutable.builder import phases
from saltext.immutable.builder.export import disk, formats, kernel, tree
from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.vm import ramdisk
from saltext.immutable.host import Host, write
from saltext.immutable.images import verify
from saltext.immutable.machines import images, qemu
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine

_ROOM = 8 << 30
"""Bytes that the disk has besides the image, as far as they are used."""
_BOOTS_WITHIN = 600.0
"""Seconds. Without KVM it boots in minutes."""


def test_disk(host: Host, order: Mapping[str, Any]) -> list[run.Result]:
    """Boot a machine from the disk of an image, under the recipe's bake_id, and run the tests ``vm`` in it.

    The first result is whether it boots, also where its kernel does not get far.

    ``order``: as for `image_tests.run.test_image`, and vm (memory: bytes, cpus).
    Raises CommandExecutionError where the image, or this host, lacks what a disk needs.
    """
    qemu.require()
    with ExitStack() as undo:
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        workspace = undo.enter_context(host.workspace())
        (host.pki / order["bake_id"]).rename(workspace / "pki")
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        description, began = _machine(host, workspace, order), time.monotonic()
        try:
            machine = undo.enter_context(machines.temporary(host, description))
        except qemu.NotBooted as err:
            return [run.boot_result(order, "vm", began, str(err))]
        if machine.emulated:
            phases.say(qemu.EMULATED.format(machine.emulated))
        booted = run.boots(host, machine, order, "vm", _BOOTS_WITHIN)
        if not booted["passed"]:
            return [booted]
        envs = {name: order["tests"][name] for name in ("saltenv", "pillarenv")}
        return [booted, *run.run_tests(machine, order, "vm", secrets.read(machine, {**order, **envs}))]


def _machine(host: Host, workspace: Path, order: Mapping[str, Any]) -> Machine:
    """Return the description of the machine. `sweep` finds it by its folder in the workspace after a kill."""
    found = formats.disk_of(host, order["image"])
    lower = images.lower(host, order["image"])
    verify.require_layers(host, images.read(host, order["image"])["layers"])
    folder = workspace / "vm"
    folder.mkdir()
    (folder / "disk").touch(mode=0o600)
    disk.write(folder / "disk", found, lambda entry: None)
    os.truncate(folder / "disk", (folder / "disk").stat().st_size + _ROOM)
    entries = {entry.path: Path(entry.source) for entry in tree.merged(found.layers)}
    of_image = kernel.find(found.name, entries)
    modules = kernel.modules(found.name, of_image.version, entries, ramdisk.MODULES)
    keys = {f"{run.PKI}/{file.name}": file.read_text() for file in (workspace / "pki").iterdir()}
    wanted = {"files": keys, "mounts": {}, "caches": [], "network": qemu.ADDRESS, **ramdisk.agent()}
    config = {**order["minion"], "id": order["bake_id"], "pki_dir": run.PKI}
    write(folder / "machine.conf", json.dumps(config))
    return Machine(
        minion_id=order["bake_id"],
        image=order["image"],
        lower=lower,
        minion=config,
        bridge=order["bridge"],
        subnet=order["subnet"],
        binds={run.PKI: str(workspace / "pki")},
        vm=qemu.VirtualMachine(
            folder=str(folder),
            kernel=str(of_image.vmlinuz),
            initrd=ramdisk.write(folder, ramdisk.of_test(modules, wanted), of_image.initrd),
            # The last word of a kind counts.
            options=f"{disk.options(found.digest)} {ramdisk.OPTIONS}",
            disks=(str(folder / "disk"),),
            memory=order["vm"]["memory"],
            cpus=order["vm"]["cpus"],
            config=str(folder / "machine.conf"),
        ),
    )
