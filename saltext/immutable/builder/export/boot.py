"""What a machine that boots from an exported disk does before its init.

The initial RAM disk runs this file in the image's root, with the image's own /usr/bin/python3, so it imports the
standard library only. It mounts the writable directories and the files that belong to this machine alone, from the
third partition of the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEAL = "etc/immutable/seal.json"
MACHINE = "etc/salt/minion.d/zzz-machine.conf"
MACHINE_CONF = "immutable/machine.conf"
"""Minion config of this machine in JSON, on the EFI system partition."""
_FIRMWARE = "sys/firmware/qemu_fw_cfg/by_name/opt/immutable/machine.conf/raw"
"""The same from qemu, for one start (``-fw_cfg``)."""
_MODULES = ("vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "ext4", "overlay", "qemu_fw_cfg")
_MOUNT_POINT = "mnt"
"""An empty directory of the image."""
_NETWORK_CONFIG = (
    "etc/systemd/network/*.network",
    "etc/netplan/*.yaml",
    "etc/network/interfaces.d/*",
    "etc/NetworkManager/system-connections/*",
)
_DHCP = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n"
_RESOLVED = "lib/systemd/systemd-resolved"
_STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"
"""The resolv.conf that systemd-resolved(8) recommends."""
_DISK_WITHIN = 30.0
"""Seconds to wait for a partition."""


def part_uuid(digest: str, part: str) -> str:
    """Return the UUID of a partition (``part``) or of the disk. It follows from the image's digest."""
    return str(uuid.UUID(hashlib.sha256(f"{digest} {part}".encode()).hexdigest()[:32], version=4))


def overlays(writable: Sequence[str]) -> dict[str, str]:
    """Return the writable directories: path -> folder on the third partition that takes the changes."""
    others = [path for path in writable if not f"{path}/".startswith("/var/")]
    return {"/var": "var"} | {path: f"writable-{number}" for number, path in enumerate(others)}


def config(text: str, source: str) -> dict[str, Any]:
    """Return the minion config in a text. ``source``: where the text is from, for the message of ``SystemExit``."""
    try:
        found = json.loads(text)
    except ValueError as err:
        raise SystemExit(f"{source}: it is no JSON: {err}; write the minion config as JSON there") from err
    if not isinstance(found, dict):
        raise SystemExit(f"{source}: it is no mapping; write the minion config as JSON there")
    return found


def own_files(root: Path, machine: Mapping[str, Any], machine_id: str) -> dict[str, str]:
    """Return the files of this machine alone: path -> text. ``machine``: its minion config."""
    minion_id = str(machine.get("id", ""))
    files = {MACHINE: json.dumps(machine, indent=1), "etc/machine-id": f"{machine_id}\n"}
    if minion_id:
        files["etc/hosts"] = f"{_text(root / 'etc/hosts')}127.0.1.1 {minion_id} {minion_id.split('.')[0]}\n"
    if not _text(root / "etc/resolv.conf") and (root / _RESOLVED).exists():
        files["etc/resolv.conf"] = _STUB
    return {path: text for path, text in files.items() if (root / path).is_file()}


def network_files(root: Path) -> dict[str, str]:
    """Return files for systemd-networkd that ask for an address by DHCP: path -> text.

    Empty where the image has a network configuration.
    """
    if any(found for pattern in _NETWORK_CONFIG for found in root.glob(pattern)):
        return {}
    return {"run/systemd/network/90-immutable.network": _DHCP}


def _text(file: Path) -> str:
    """Return the text of a regular file of the image, or ''. A symbolic link may lead out of the image."""
    return file.read_text(errors="replace") if file.is_file() and not file.is_symlink() else ""


def main(root: Path = Path("/")) -> None:
    """Prepare the machine. Raise ``SystemExit`` with a message where that is not possible."""
    seal = json.loads((root / SEAL).read_text())
    _run("modprobe", "--quiet", "--all", *_MODULES, check=False)
    machine = _machine_config(root, seal["image"])
    mount_point = root / _MOUNT_POINT
    data = _device(part_uuid(seal["image"], "data"))
    _grow(root, data)
    _run("mount", "-t", "ext4", "-o", "noatime", str(data), str(mount_point))
    _run(str(root / "lib/systemd/systemd-growfs"), str(mount_point), check=False)
    _run("mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", "/tmp")
    for path, name in overlays(seal["policy"]["writable"]).items():
        _overlay(path, mount_point / name)
    for path, text in own_files(root, machine, _machine_id(mount_point)).items():
        _show(mount_point / "own" / Path(path).name, text, root / path)
    _run("umount", "--lazy", str(mount_point))
    _set_hostname(machine)
    _configure_network(root)


def _machine_config(root: Path, digest: str) -> dict[str, Any]:
    """Return the minion config of this machine: from qemu, else from the EFI system partition, else {}."""
    if (firmware := root / _FIRMWARE).exists():
        return config(firmware.read_text(), "fw_cfg opt/immutable/machine.conf")
    mount_point = root / _MOUNT_POINT
    _run("mount", "-t", "vfat", "-o", "ro", str(_device(part_uuid(digest, "esp"))), str(mount_point))
    try:
        return config((mount_point / MACHINE_CONF).read_text(), f"{MACHINE_CONF} on the EFI system partition")
    except FileNotFoundError:
        print(f"immutable: {MACHINE_CONF} is not on the EFI system partition, so the minion has no master", flush=True)
        return {}
    finally:
        _run("umount", str(mount_point))


def _device(identity: str) -> Path:
    """Return the device of a partition by its UUID; wait until it is there."""
    link, end = Path("/dev/disk/by-partuuid", identity), time.monotonic() + _DISK_WITHIN
    while not link.exists():
        if time.monotonic() > end:
            raise SystemExit(
                f"partition {identity} was not found within {_DISK_WITHIN:.0f} s; write the whole disk again"
            )
        time.sleep(0.1)
    return link.resolve()


def _grow(root: Path, data: Path) -> None:
    """Grow the partition into the free space behind it. Where there is none, leave it as it is."""
    disk = Path("/sys/class/block", data.name).resolve().parent.name
    definitions = root / "run/immutable-repart"
    definitions.mkdir(parents=True, exist_ok=True)
    (definitions / "data.conf").write_text("[Partition]\nType=linux-generic\n")
    words = [f"--definitions={definitions}", "--dry-run=no", "--seed=random", "--no-pager", "--pretty=no"]
    _run("systemd-repart", *words, f"/dev/{disk}", check=False)


def _overlay(path: str, changes: Path) -> None:
    """Mount an overlay on a directory of the image, so that changes go to the folder ``changes``."""
    for kind in ("upper", "work"):
        (changes / kind).mkdir(parents=True, exist_ok=True)
    below = Path(path).stat()
    upper = changes / "upper"
    upper.chmod(below.st_mode & 0o7777)
    os.chown(upper, below.st_uid, below.st_gid)
    options = f"redirect_dir=off,metacopy=off,index=off,lowerdir={path},upperdir={upper},workdir={changes}/work"
    _run("mount", "-t", "overlay", "-o", options, "overlay", path)


def _show(file: Path, text: str, target: Path) -> None:
    """Write ``text`` to ``file`` and mount that read-only over a file of the image."""
    file.parent.mkdir(mode=0o755, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)
    _run("mount", "-o", "bind", str(file), str(target))
    _run("mount", "-o", "remount,bind,ro", str(target))


def _machine_id(folder: Path) -> str:
    """Return the machine-id, which the first boot makes and ``folder`` keeps."""
    file = folder / "machine-id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text()


def _set_hostname(machine: Mapping[str, Any]) -> None:
    if minion_id := str(machine.get("id", "")):
        Path("/proc/sys/kernel/hostname").write_text(minion_id.split(".")[0][:63])


def _configure_network(root: Path) -> None:
    files = network_files(root)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    wants = root / "run/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in ("systemd-networkd.service", "systemd-resolved.service") if files else ():
        if (root / "lib/systemd/system" / unit).exists():
            (wants / unit).symlink_to(f"/lib/systemd/system/{unit}")


def _run(*words: str, check: bool = True) -> None:
    """Run a program; its output goes to the console. Raise ``SystemExit`` if it fails, unless ``check`` is false."""
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL)
    if done.returncode and check:
        raise SystemExit(f"{' '.join(words)} exited with {done.returncode}; fix what it says above, and boot again")
    if done.returncode:
        print(f"immutable: {words[0]} exited with {done.returncode}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
