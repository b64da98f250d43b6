"""Make the machine with a kernel of its own in which states are applied (``bake_in: vm``).

It has three disks: the layers below as one squashfs, an ext4 that takes the changes, and one with apt's downloads,
which later bakes use again. Its root is an overlay of the first two, so what it changed is a layer like any other.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import kernel, squashfs, tree
from saltext.immutable.builder.vm import disks, ramdisk
from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host, tail
from saltext.immutable.images.manifest import sha256
from saltext.immutable.machines import qemu
from saltext.immutable.machines.description import Machine

_POWERED_OFF = "reboot: Power down"
_IDS = uuid.UUID("1d0b0c94-4f0e-4d0c-9b52-8d3c1f2c7a55")


def prepare(host: Host, workspace: Path, order: Mapping[str, Any], description: Machine) -> Machine:
    """Return the description of a machine in which states are applied, with a kernel of its own.

    ``order``: bake_id, bridge, subnet, offline, and vm: memory (bytes), cpus, vmlinuz and initrd (paths of this host,
    None: those of the image). ``description``: that of the container. Raises CommandExecutionError where the image has
    no kernel, or this host no qemu.
    """
    qemu.require()
    if description.route not in ("default", ""):
        raise CommandExecutionError(
            "bake_in: vm with cache=only reaches a master on this host only; set immutable:master to an address of the "
            "bridge, or bake with cache=use"
        )
    folder = workspace / disks.FOLDER
    folder.mkdir()
    layers = [*((host.l / name).resolve() for name in description.lower), workspace / "fs"]
    found, modules = _kernel(order, {entry.path: Path(entry.source) for entry in tree.merged(layers)})
    squashfs.write(folder / "layers.squashfs", layers, 0.0, compressed=False)
    changes, downloads = disks.for_changes(host, folder, description.lower), disks.for_downloads(host, order["bake_id"])
    machine = qemu.VirtualMachine(
        folder=str(folder),
        kernel=str(found.vmlinuz),
        initrd=ramdisk.write(folder, ramdisk.of_bake(modules, _wanted(description)), found.initrd),
        options=_options(workspace.name, description),
        disks=tuple(map(str, (folder / "layers.squashfs", changes, downloads))),
        memory=order["vm"]["memory"],
        cpus=order["vm"]["cpus"],
    )
    return replace(description, files={}, binds={}, vm=machine)


def _kernel(order: Mapping[str, Any], image: Mapping[str, Path]) -> tuple[kernel.Kernel, dict[str, bytes]]:
    """Return the kernel of the machine, and the modules that its own RAM disk may lack. ``image``: its files."""
    wanted = order["vm"]
    if wanted["vmlinuz"] is None:
        found = kernel.find(f"the stack below {order['what']}", image)
        return found, kernel.modules(f"the stack below {order['what']}", found.version, image, ramdisk.MODULES)
    return kernel.Kernel("", *_own_kernel(wanted)), {}


def kernel_content(order: Mapping[str, Any]) -> list[str]:
    """Return the hashes of a kernel of this host and its initial RAM disk. ``order``: vmlinuz and initrd (paths)."""
    return [sha256(str(file)) for file in _own_kernel(order)]


def _own_kernel(wanted: Mapping[str, Any]) -> list[Path]:
    for key in ("vmlinuz", "initrd"):
        if not Path(wanted[key]).is_file():
            raise CommandExecutionError(f"kernel:{key}: {wanted[key]} is no file of the builder; name one that is")
    return [Path(wanted["vmlinuz"]), Path(wanted["initrd"])]


def _wanted(description: Machine) -> dict[str, Any]:
    """Return what `setup.main` takes: what the container would have mounted."""
    given = {path: _text(Path(source)) for path, source in description.files.items()}
    folders = {path: Path(source) for path, source in description.binds.items()}
    for path, folder in folders.items():
        if path.startswith("/run/"):
            given |= {f"{path}/{file.name}": _text(file) for file in folder.iterdir()}
    config = {str(MACHINE_PATH): json.dumps(description.minion, indent=1)}
    return {
        "files": {path: text for path, text in given.items() if path.startswith("/run/")},
        "mounts": config | {path: text for path, text in given.items() if not path.startswith("/run/")},
        "caches": [path for path in folders if not path.startswith("/run/")],
        "network": "",
        **ramdisk.agent(),
    }


def _text(file: Path) -> str:
    """Return the text of a file, also where it is no UTF-8, as comments in a bundle of certificates may be."""
    return file.read_text(encoding="utf-8", errors="surrogateescape")


def _options(workspace: str, description: Machine) -> str:
    """Return the kernel's command line."""
    words = ["rw", "noresume", f"systemd.hostname={description.minion_id.split('.')[0][:63]}", "systemd.gpt_auto=0"]
    return " ".join([ramdisk.OPTIONS, *words, f"systemd.machine_id={uuid.uuid5(_IDS, workspace).hex}"])


def require_shut_down(console: str) -> None:
    """Raise CommandExecutionError unless a machine has written its changes: the last word of a kernel that ends."""
    if _POWERED_OFF not in console:
        raise CommandExecutionError(
            f"the machine ended before it had shut down, so its changes may be incomplete; bake again:\n{tail(console)}"
        )
