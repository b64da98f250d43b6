"""Disks of systems, as clouds offer them: qcow2, raw or vmdk. `disk_root` takes the root out of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.sources import downloads, program
from saltext.immutable.builder.sources.disk_root import PROGRAM
from saltext.immutable.host import Host, remove, run
from saltext.immutable.images import manifest
from saltext.immutable.machines.cgroup import Cgroup

_FORMATS = ("qcow2", "raw", "vmdk")


def content(order: Mapping[str, Any]) -> str:
    """Return the sha256 of a disk. ``order``: disk, a path of this host. Raises SaltInvocationError where is none."""
    file = Path(order["disk"])
    if not file.is_file():
        raise SaltInvocationError(f"from:disk: there is no file {file} on the builder; correct the path")
    return manifest.sha256(str(file))


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> list[str]:
    """Make ``workspace``/fs from the root on a disk, with processes in the cgroup ``processes``; return warnings.

    ``order``: what, disk (path or URL), sha256, partition (None: it is found), offline. The disk is only read. Raises
    CommandExecutionError where it is another one, or no root can be taken from it.
    """
    file = downloads.fetched(host, workspace, order["disk"], order)
    downloads.require_content(file, manifest.sha256(str(file)), order["sha256"])
    before = downloads.version(file)
    raw = _raw(file, workspace / "disk.raw", processes)
    asked = {"disk": str(raw), "workspace": str(workspace), "partition": order["partition"], "what": order["what"]}
    warnings = program.call(processes, PROGRAM, asked)
    if raw != file:
        remove(raw)
    if downloads.version(file) != before:
        raise CommandExecutionError(f"{file} changed while it was read; bake again")
    return warnings


def _raw(file: Path, target: Path, processes: Cgroup) -> Path:
    """Return a disk as a raw file: itself, or ``target``, to which it is converted."""
    about = json.loads(run(["qemu-img", "info", "--output=json", file]).stdout)
    _require_alone(file, about)
    if about["format"] == "raw":
        return file
    convert = ["qemu-img", "convert", "-f", about["format"], "-O", "raw", file, target]
    run([*processes.start_command(), *convert])
    return target


def _require_alone(file: Path, about: Mapping[str, Any]) -> None:
    """Raise CommandExecutionError unless a disk is of a known format, and needs no other file of this host."""
    kind = about["format"]
    if kind not in _FORMATS:
        raise CommandExecutionError(
            f"{file} is {kind}, and disks are read from {', '.join(_FORMATS)}; make a qcow2 of it (qemu-img convert)"
        )
    data = about.get("format-specific", {}).get("data", {})
    others = [about.get("backing-filename"), data.get("data-file")]
    others += [extent["filename"] for extent in data.get("extents", ()) if extent["filename"] != about["filename"]]
    if other := next(filter(None, others), None):
        raise CommandExecutionError(
            f"{file} is only a part of a disk: it refers to {other}, which is not read; make one file of it (qemu-img "
            "convert)"
        )
