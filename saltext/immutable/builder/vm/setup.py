"""What a virtual machine of a builder does before its init.

The initial RAM disk runs this file in the machine's root, with the image's own Python, so it imports the standard
library only. After it comes a line that calls `main` with what this machine is to have.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OWN = "run/immutable-vm"
"""Folder for what only this machine has."""
_UNIT = """[Unit]
Description=Commands of the builder
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0
[Service]
ExecStart=/opt/salt/bin/python -I /{own}/agent.py {port}
Restart=always
OOMScoreAdjust=-1000
"""
_NAME = "immutable-vm-agent.service"


def main(wanted: Mapping[str, Any], root: Path = Path("/")) -> None:
    """Prepare the machine.

    ``wanted``: files (path to text, below /run), mounts (path to text of a file that is mounted read-only), caches
    (folders that are on the third disk), network (the word of the kernel's command line with the address, where
    systemd-networkd must not ask for another one), agent (its program) and port.
    """
    if wanted["network"]:
        _write(root / "run/systemd/network/10-immutable-vm.network", _network(root, wanted["network"]))
    for path, text in wanted["files"].items():
        _write(root / path.lstrip("/"), text)
    for number, (path, text) in enumerate(wanted["mounts"].items()):
        _show(root / OWN / f"files/{number}", text, root / path.lstrip("/"))
    if wanted["caches"]:
        _mount_caches(root, wanted["caches"])
    _write(root / OWN / "agent.py", wanted["agent"])
    units = root / "run/systemd/system"
    _write(units / _NAME, _UNIT.format(own=OWN, port=wanted["port"]))
    wants = units / "sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / _NAME).symlink_to(f"../{_NAME}")


def _network(root: Path, word: str) -> str:
    """Return a file for systemd-networkd with the address that the machine has already."""
    words = (root / "proc/cmdline").read_text().split()
    given = next(each.partition("=")[2] for each in words if each.startswith(f"{word}="))
    address, _, gateway, netmask, _, name, _ = given.split(":")
    own = ipaddress.IPv4Interface(f"{address}/{netmask}").with_prefixlen
    lines = [f"[Match]\nName={name}\n\n[Network]\nAddress={own}"]
    return "\n".join([*lines, *([f"Gateway={gateway}"] if gateway else []), ""])


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600 if "PRIVATE KEY" in text else 0o644)
    file.write_text(text, encoding="utf-8", errors="surrogateescape")


def _show(file: Path, text: str, target: Path) -> None:
    """Mount a file over one of the image, as a container has it. What is not there becomes an empty file."""
    _write(file, text)
    file.chmod(0o755 if text.startswith("#!") else 0o644)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _run("mount", "-o", "bind", str(file), str(target))
    _run("mount", "-o", "remount,bind,ro", str(target))


def _mount_caches(root: Path, paths: Sequence[str]) -> None:
    disk = root / OWN / "cache"
    disk.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "ext4", "-o", "noatime", "/dev/vdc", str(disk))
    for path in paths:
        kept = disk / path.strip("/").replace("/", "-")
        for folder in (kept / "partial", root / path.lstrip("/")):
            folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", "bind", str(kept), str(root / path.lstrip("/")))


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} exited with {done.returncode}; find the reason above")


os.umask(0o022)
