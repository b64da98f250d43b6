"""What a machine that boots from an exported disk does before its init.

The initial RAM disk runs this file in the image's root, with the image's own /usr/bin/python3: standard library only.
It makes writable what a machine of the image may write to, and shows it the files that make it this one machine. What
it keeps and shows is on the third partition, which nothing in the machine has mounted as a whole.
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
TOLD = "immutable/machine.conf"
"""On the EFI system partition: Salt config in JSON, with what is true of this one machine."""
_FIRMWARE = "sys/firmware/qemu_fw_cfg/by_name/opt/immutable/machine.conf/raw"
"""The same, told by qemu for one start."""
_MODULES = ("vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "ext4", "overlay", "qemu_fw_cfg")
_PLACE = "mnt"
_NETWORKS = (
    "etc/systemd/network/*.network",
    "etc/netplan/*.yaml",
    "etc/network/interfaces.d/*",
    "etc/NetworkManager/system-connections/*",
)
_DHCP = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n"
_RESOLVED = "lib/systemd/systemd-resolved"
_STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"
"""What systemd-resolved(8) wants in resolv.conf."""
_PATIENCE = 30.0


def part_uuid(digest: str, part: str) -> str:
    """Return the id of a part of the disk of an image, the same for each export of it."""
    return str(uuid.UUID(hashlib.sha256(f"{digest} {part}".encode()).hexdigest()[:32], version=4))


def overlays(writable: Sequence[str]) -> dict[str, str]:
    """Return where changes go: path inside -> name on the third partition."""
    others = [path for path in writable if not f"{path}/".startswith("/var/")]
    return {"/var": "var"} | {path: f"writable-{number}" for number, path in enumerate(others)}


def config(text: str, place: str) -> dict[str, Any]:
    """Return what a machine is told of itself."""
    try:
        found = json.loads(text)
    except ValueError as err:
        raise SystemExit(f"{place}: it is no JSON: {err}") from err
    if not isinstance(found, dict):
        raise SystemExit(f"{place}: it is no mapping of Salt config")
    return found


def own_files(root: Path, told: Mapping[str, Any], machine_id: str) -> dict[str, str]:
    """Return what only this machine has: path -> text."""
    minion_id = str(told.get("id", ""))
    files = {MACHINE: json.dumps(told, indent=1), "etc/machine-id": f"{machine_id}\n"}
    if minion_id:
        files["etc/hosts"] = f"{_text(root / 'etc/hosts')}127.0.1.1 {minion_id} {minion_id.split('.')[0]}\n"
    if not _text(root / "etc/resolv.conf") and (root / _RESOLVED).exists():
        files["etc/resolv.conf"] = _STUB
    return {path: text for path, text in files.items() if (root / path).is_file()}


def network_files(root: Path) -> dict[str, str]:
    """Return what lets systemd-networkd ask for an address: path -> text, or a link's target.

    Nothing where the image has its own network configuration.
    """
    if any(found for pattern in _NETWORKS for found in root.glob(pattern)):
        return {}
    return {"run/systemd/network/90-immutable.network": _DHCP}


def _text(file: Path) -> str:
    """Return what is in a file of the image; a link may lead out of it."""
    return file.read_text(errors="replace") if file.is_file() and not file.is_symlink() else ""


def main(root: Path = Path("/")) -> None:
    """Do all of it, before init; raise ``SystemExit`` with a sentence where this machine cannot become one."""
    seal = json.loads((root / SEAL).read_text())
    _run("modprobe", "--quiet", "--all", *_MODULES, check=False)
    told = _told(root, seal["image"])
    place = root / _PLACE
    data = _device(part_uuid(seal["image"], "data"))
    _grow(root, data)
    _run("mount", "-t", "ext4", "-o", "noatime", str(data), str(place))
    _run(str(root / "lib/systemd/systemd-growfs"), str(place), check=False)
    _run("mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", "/tmp")
    for path, name in overlays(seal["policy"]["writable"]).items():
        _overlay(path, place / name)
    for path, text in own_files(root, told, _machine_id(place)).items():
        _show(place / "own" / Path(path).name, text, root / path)
    _run("umount", "--lazy", str(place))
    _name(told)
    _network(root)


def _told(root: Path, digest: str) -> dict[str, Any]:
    if (firmware := root / _FIRMWARE).exists():
        return config(firmware.read_text(), "fw_cfg opt/immutable/machine.conf")
    place = root / _PLACE
    _run("mount", "-t", "vfat", "-o", "ro", str(_device(part_uuid(digest, "esp"))), str(place))
    try:
        return config((place / TOLD).read_text(), f"{TOLD} on the EFI system partition")
    except FileNotFoundError:
        print(f"immutable: {TOLD} is not on the EFI system partition: this machine knows no master", flush=True)
        return {}
    finally:
        _run("umount", str(place))


def _device(identity: str) -> Path:
    """Return the partition of this id, as soon as it is there."""
    link, end = Path("/dev/disk/by-partuuid", identity), time.monotonic() + _PATIENCE
    while not link.exists():
        if time.monotonic() > end:
            raise SystemExit(f"no partition {identity} was found within {_PATIENCE:.0f} s")
        time.sleep(0.1)
    return link.resolve()


def _grow(root: Path, data: Path) -> None:
    """Let the partition take what is free behind it; a machine whose disk is full goes without."""
    disk = Path("/sys/class/block", data.name).resolve().parent.name
    definitions = root / "run/immutable-repart"
    definitions.mkdir(parents=True, exist_ok=True)
    (definitions / "data.conf").write_text("[Partition]\nType=linux-generic\n")
    words = [f"--definitions={definitions}", "--dry-run=no", "--seed=random", "--no-pager", "--pretty=no"]
    _run("systemd-repart", *words, f"/dev/{disk}", check=False)


def _overlay(path: str, changes: Path) -> None:
    """Let changes to a directory of the image go elsewhere."""
    for kind in ("upper", "work"):
        (changes / kind).mkdir(parents=True, exist_ok=True)
    below = Path(path).stat()
    upper = changes / "upper"
    upper.chmod(below.st_mode & 0o7777)
    os.chown(upper, below.st_uid, below.st_gid)
    options = f"redirect_dir=off,metacopy=off,index=off,lowerdir={path},upperdir={upper},workdir={changes}/work"
    _run("mount", "-t", "overlay", "-o", options, "overlay", path)


def _show(file: Path, text: str, target: Path) -> None:
    """Mount a file over one of the image."""
    file.parent.mkdir(mode=0o755, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)
    _run("mount", "-o", "bind", str(file), str(target))
    _run("mount", "-o", "remount,bind,ro", str(target))


def _machine_id(place: Path) -> str:
    """Return the id that this machine made on its first boot."""
    file = place / "machine-id"
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text()


def _name(told: Mapping[str, Any]) -> None:
    if minion_id := str(told.get("id", "")):
        Path("/proc/sys/kernel/hostname").write_text(minion_id.split(".")[0][:63])


def _network(root: Path) -> None:
    files = network_files(root)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    wanted = root / "run/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    for unit in ("systemd-networkd.service", "systemd-resolved.service") if files else ():
        if (root / "lib/systemd/system" / unit).exists():
            (wanted / unit).symlink_to(f"/lib/systemd/system/{unit}")


def _run(*words: str, check: bool = True) -> None:
    """Run a program; what it says goes to the console."""
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL)
    if done.returncode and check:
        raise SystemExit(f"{' '.join(words)} exited with {done.returncode}")
    if done.returncode:
        print(f"immutable: {words[0]} exited with {done.returncode}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
