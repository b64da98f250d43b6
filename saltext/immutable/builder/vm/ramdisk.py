"""What a virtual machine of a builder has in its initial RAM disk besides what initramfs-tools puts there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from saltext.immutable.builder.export import initrd_archive
from saltext.immutable.builder.sources.minion import VENV
from saltext.immutable.machines import qemu

NAME = "immutable-vm"
"""Value of ``boot=`` on the kernel's command line, and name of our script: see initramfs-tools(7)."""
OPTIONS = " ".join((
    *(f"boot={NAME}", "panic=-1", "net.ifnames=0", "console=ttyS0"),
    # The journal on the console, so that a failed boot can be read there: only the console outlives the machine.
    *("systemd.journald.forward_to_console=1", "systemd.journald.max_level_console=info"),
))  # fmt: skip
"""Part of the kernel's command line."""
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "squashfs", "ext4", "overlay")
"""Kernel modules without which it has no root, no network or no agent."""
_COMMON = r"""
prepare() {
    for each in @modules@; do modprobe -q -d /immutable $each || modprobe -q $each; done
    for each in $(cat /proc/cmdline); do
        case $each in @key@=*) ipconfig -t 30 "${each#*=}" ;; esac
    done || panic "The network cannot be set up."
}
set_up() {
    for each in dev proc sys run; do mount -o bind "/$each" "$rootmnt/$each"; done
    chroot "$rootmnt" @python@ -I - </immutable/setup.py || panic "The machine cannot be set up."
    for each in run sys proc dev; do umount "$rootmnt/$each"; done
}
"""
_BAKE = r"""
mountroot() {
    prepare
    tries=0
    while [ ! -b /dev/vdb ] && [ $tries -lt 300 ]; do tries=$((tries + 1)); sleep 0.1; done
    mkdir -p /lower /changes
    mount -t squashfs -o ro /dev/vda /lower || panic "The disk with the layers cannot be mounted."
    mount -t ext4 /dev/vdb /changes || panic "The disk for the changes cannot be mounted."
    options=lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work,redirect_dir=off,metacopy=off,index=off
    mount -t overlay -o $options overlay "$rootmnt" || panic "The layers cannot be mounted."
    set_up
}
"""
_TEST = r"""
mountroot() {
    prepare
    mount_disk
    set_up
}
"""


def of_bake(modules: Mapping[str, bytes], wanted: Mapping[str, Any]) -> bytes:
    """Return a cpio archive with the script that mounts the root of a bake, `setup`, and kernel modules.

    ``modules``: path below /lib/modules -> content. ``wanted``: see `setup.main`.
    """
    return _archive(_COMMON + _BAKE, modules, wanted)


def of_test(modules: Mapping[str, bytes], wanted: Mapping[str, Any]) -> bytes:
    """Return the same for a machine that boots from the disk of an image, as `export.initrd` mounts it."""
    return _archive(_COMMON + initrd_archive.SCRIPT.replace("mountroot()", "mount_disk()") + _TEST, modules, wanted)


def _archive(script: str, modules: Mapping[str, bytes], wanted: Mapping[str, Any]) -> bytes:
    setup = files("saltext.immutable.builder.vm").joinpath("setup.py").read_text()
    call = f"main(__import__('json').loads({json.dumps(json.dumps(wanted))}))\n"
    words = {"@modules@": " ".join(MODULES), "@key@": qemu.ADDRESS, "@python@": f"{VENV}/bin/python"}
    for mark, word in words.items():
        script = script.replace(mark, word)
    content = {f"scripts/{NAME}": script.encode(), "immutable/setup.py": f"{setup}\n\n{call}".encode()}
    return initrd_archive.archive(modules, content)


def write(folder: Path, archive: bytes, of_kernel: Path) -> str:
    """Write the initial RAM disk of a machine, which has its keys, into its folder; return the path.

    ``archive``: ours; ``of_kernel``: the one that initramfs-tools made.
    """
    file = folder / "initrd"
    file.touch(mode=0o600)
    # Ours first: the kernel expects the next one at a multiple of 4 bytes, where the image's may not end.
    file.write_bytes(archive + of_kernel.read_bytes())
    return str(file)


def agent() -> dict[str, str]:
    """Return the part of what `setup.main` takes that is the same for each machine."""
    program = files("saltext.immutable.builder.vm").joinpath("agent.py").read_text()
    return {"agent": program, "port": qemu.PORT}
