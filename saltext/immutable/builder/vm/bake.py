"""Make the machine with a kernel of its own in which states are applied (``bake_in: vm``), and take its changes.

It has three disks: the layers below as one squashfs, an ext4 that takes the changes, and one with apt's downloads,
which later bakes use again. Its root is an overlay of the first two, so what it changed is a layer like any other.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import kernel, squashfs, tree
from saltext.immutable.builder.export.programs import find
from saltext.immutable.builder.vm import ramdisk
from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host, remove, run, tail
from saltext.immutable.images.manifest import sha256
from saltext.immutable.machines import overlay, qemu
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.machines.description import Machine

_FOLDER, _CHANGES, _CACHE = "vm", "changes.ext4", "cache.ext4"
_CHANGES_SIZE, _CACHE_SIZE = 64 << 30, 16 << 30
"""Bytes, as far as they are used: the files have holes."""
_EXT4 = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
_POWERED_OFF = "reboot: Power down"
_BEYOND_REPAIR = 4
"""Exit code of e2fsck where errors are left."""
_IDS = uuid.UUID("1d0b0c94-4f0e-4d0c-9b52-8d3c1f2c7a55")
_TAKE = """
mount -o loop "$1" "$2"
cp --archive "$2/upper/." "$3"
"""


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
    folder = workspace / _FOLDER
    folder.mkdir()
    layers = [*((host.l / name).resolve() for name in description.lower), workspace / "fs"]
    found, modules = _kernel(order, {entry.path: Path(entry.source) for entry in tree.merged(layers)})
    squashfs.write(folder / "layers.squashfs", layers, 0.0, compressed=False)
    _make_changes(host, folder, description.lower)
    disks = (folder / "layers.squashfs", folder / _CHANGES, _cache(host, order["bake_id"]))
    machine = qemu.VirtualMachine(
        folder=str(folder),
        kernel=str(found.vmlinuz),
        initrd=ramdisk.write(folder, ramdisk.of_bake(modules, _wanted(description)), found.initrd),
        options=_options(workspace.name, description),
        disks=tuple(map(str, disks)),
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


def _make_changes(host: Host, folder: Path, lower: Sequence[str]) -> None:
    """Make the disk for the changes. The folder that takes them has owner and mode of the image's root."""
    content = folder / "changes"
    for name in ("upper", "work"):
        (content / name).mkdir(parents=True)
    root = overlay.top_directory(host.l, lower, "/")
    if root is not None:
        info = root.stat()
        os.chown(content / "upper", info.st_uid, info.st_gid)
        (content / "upper").chmod(stat.S_IMODE(info.st_mode))
    _make_disk(folder / _CHANGES, _CHANGES_SIZE, ["-d", str(content)])
    remove(content)


def _cache(host: Host, name: str) -> Path:
    """Return the disk that keeps apt's downloads. One that a kill left beyond repair is made anew."""
    file = host.cache / "apt" / name / _CACHE
    file.parent.mkdir(parents=True, exist_ok=True)
    mended = file.exists() and run([find("e2fsck", "e2fsprogs"), "-p", file], check=False).returncode < _BEYOND_REPAIR
    if not mended:
        file.unlink(missing_ok=True)
        _make_disk(file, _CACHE_SIZE)
    return file


def _make_disk(file: Path, size: int, options: Sequence[str] = ()) -> None:
    file.touch(mode=0o600)
    os.truncate(file, size)
    run([find("mke2fs", "e2fsprogs"), *_EXT4, *options, file])


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


def take_changes(workspace: Path, processes: Cgroup) -> None:
    """Move what the machine changed into the folder ``fs`` of a workspace, once it has shut down.

    The disk is mounted where nobody else sees it, by processes that a kill of the bake ends with it.
    """
    target, place = workspace / "fs", workspace / _FOLDER / "mounted"
    remove(target)
    target.mkdir(mode=0o755)
    place.mkdir()
    command = ["unshare", "--mount", "--propagation=private", "/bin/sh", "-ec", _TAKE, "sh"]
    run([*processes.start_command(), *command, workspace / _FOLDER / _CHANGES, place, target])
    remove(workspace / _FOLDER)
