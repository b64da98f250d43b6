"""States of mounts and swap: what a container cannot mount gets its line in fstab, and is mounted at boot."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saltext.immutable.builder.states.handlers.call import AT_LAUNCH, Call, Result

FSTAB = "systemd-fstab-generator"
DEVICES = ("/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "ID=")
_NOT_ALLOWED = re.compile(r"operation not permitted|permission denied|must be superuser", re.IGNORECASE)
_NO_DRIVER = re.compile(r"unknown filesystem type|no such device", re.IGNORECASE)
_FILESYSTEMS = Path("/proc/filesystems")
_OF_LINUX = re.compile(
    "9p|afs|autofs|bcachefs|btrfs|ceph|cifs|efivarfs|exfat|ext[234]|f2fs|fuse(\\..*)?|gfs2|hugetlbfs|iso9660|lustre|mqueue"
    "|nfs4?|nfsd|ntfs3|ocfs2|overlay|smb3|squashfs|tracefs|udf|vboxsf|vfat|virtiofs|xfs|zfs"
)
"""File systems that the kernel of a machine may have though that of the builder does not."""


def swap(call: Call) -> Result:
    """`mount.swap`: Salt writes fstab after it could not activate the swap."""
    result = call.run_caught()
    if result["result"] is not False:
        return result
    if not call.get("persist"):
        return call.failed(_of_running(call, "activates swap in"))
    entry = ["none", call.name, "swap", ["defaults"], 0, 0, call.get("config")]
    return _in_fstab(call, entry, f"activate the swap {call.name}")


def mounted(call: Call) -> Result:
    """`mount.mounted`: what cannot be mounted in a container, a device above all, gets its line in fstab."""
    result, device = call.run_caught(), str(call.get("device"))
    if result["result"] is not False and call.get("mount") and not call.get("persist"):
        what = f"mounts {device} on {call.name} in the machine that bakes only; give persist: True, or {AT_LAUNCH}"
        call.lost(what, call.name)
    if result["result"] is not False or not call.get("mount"):
        return result
    if not _is_of_place(device, str(call.get("fstype")), str(result["comment"])):
        hint = "mount: False writes the line of fstab only, and each machine mounts it at boot"
        return {**result, "comment": f"{result['comment']}\n{hint}"}
    if not call.get("persist"):
        return call.failed(_of_running(call, f"mounts {device} in"))
    place = call.name.rstrip("/") or "/"
    if call.get("mkmnt"):
        os.makedirs(place, exist_ok=True)
    if not os.path.isdir(place):
        return call.failed(f"{place} is no directory; give mkmnt: True, or let a file.directory state make it")
    options = call.get("opts")
    entry = [place, device, call.get("fstype"), options if options is not None else "defaults"]
    entry += [call.get("dump"), call.get("pass_num"), call.get("config")]
    return _in_fstab(call, entry, f"mount {device} on {place}", match_on=call.get("match_on") or "auto")


def fstab(call: Call) -> Result:
    """`mount.fstab_present`: Salt writes the line, then mounts, unless it is told not to."""
    result, place = call.run_caught(), str(call.get("fs_file")).rstrip("/") or "/"
    said = result["comment"] if isinstance(result["comment"], str) else "\n".join(result["comment"])
    if result["result"] is not False or not call.get("mount") or "persist" not in result["changes"]:
        return result
    if not os.path.isdir(place) or not _is_of_place(call.name, str(call.get("fs_vfstype")), said):
        hint = "mount: False writes the line of fstab only, and each machine mounts it at boot"
        return {**result, "comment": f"{said}\n{hint}"}
    return call.deferred(f"mount {call.name} on {place}", FSTAB, result["changes"])


def remounted(call: Call) -> Result:
    """`mount.mod_watch`: what is not mounted here is not mounted again."""
    if os.path.ismount(call.name):
        return call.run()
    return {"name": call.name, "result": True, "changes": {}, "comment": f"{call.name} is mounted at boot"}


def _is_of_place(device: str, kind: str, said: str) -> bool:
    """Return whether a mount failed for what a container has not: the device, the right, or the file system."""
    lacking = bool(_OF_LINUX.fullmatch(kind)) and kind not in _FILESYSTEMS.read_text().split()
    return device.startswith(DEVICES) or bool(_NOT_ALLOWED.search(said)) or (lacking and bool(_NO_DRIVER.search(said)))


def _in_fstab(call: Call, entry: Sequence[Any], what: str, **how: Any) -> Result:
    """Write a line of fstab and leave the rest to the boot."""
    from salt.exceptions import CommandExecutionError

    try:
        added = call.salt["mount.set_fstab"](*entry, **how)
    except CommandExecutionError as err:
        return call.failed(str(err))
    return call.deferred(what, FSTAB, {} if added == "present" else {"persist": added})


def _of_running(call: Call, does: str) -> str:
    return f"{call.function} {does} the machine that bakes only; give persist: True, or {AT_LAUNCH}"
