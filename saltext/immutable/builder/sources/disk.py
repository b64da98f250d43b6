"""Disks of systems, as clouds offer them: qcow2, raw or vmdk. `copy_disk_root` takes the root out of one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.sources import downloads, program
from saltext.immutable.builder.sources.copy_disk_root import PROGRAM
from saltext.immutable.host import Host, remove, run
from saltext.immutable.images import manifest
from saltext.immutable.machines.cgroup import Cgroup

_FORMATS = ("qcow2", "raw", "vmdk")
_HEAD = 512
"""Bytes by which qemu-img recognizes a format."""
_DATA_FILE = 4
"""A bit of the features of qcow2: the content is in a file of its own."""
_DESCRIPTION = re.compile(rb"(\s|#[^\n]*\n)*version=")
"""A vmdk that only describes where its extents are."""


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
    before = downloads.version(file)
    downloads.require_content(file, manifest.sha256(str(file)), order["sha256"])
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
    with file.open("rb") as disk:
        if _refers(disk.read(_HEAD)):
            raise _part(file, "other files, which are")
    info = run([*processes.start_command(), "qemu-img", "info", "--output=json", file])
    about = json.loads(info.stdout)
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
        raise _part(file, f"{other}, which is")


def _refers(head: bytes) -> bool:
    """Return whether the first bytes of a disk say that its content is in other files.

    qemu-img would open these, whatever they are, even to tell of them: a pipe or a watchdog of this host.
    """
    if head.startswith(b"QFI\xfb"):
        return int.from_bytes(head[4:8], "big") >= 3 and bool(int.from_bytes(head[72:80], "big") & _DATA_FILE)
    if head.startswith(b"KDMV"):
        return not any(head[12:20])  # no capacity of its own
    return bool(_DESCRIPTION.match(head))


def _part(file: Path, other: str) -> CommandExecutionError:
    return CommandExecutionError(
        f"{file} is only a part of a disk: it refers to {other} not read; make one file of it (qemu-img convert)"
    )
