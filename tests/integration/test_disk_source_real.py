"""The root on the disk of a system, as clouds offer them, as that of a recipe: real mounts, and none that is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support import disks
from support.estate import wait_for

needs = [name for name in ("qemu-img", "mkfs.ext4", "sfdisk") if not shutil.which(name)]
pytestmark = [
    pytest.mark.usefixtures("as_delivered"),
    pytest.mark.skipif(bool(needs), reason=f"needs {', '.join(needs)}"),
]
SIZE = 700
"""MiB of the file system."""


@pytest.fixture(scope="module")
def system(estate, tmp_path_factory) -> Path:
    """The root of a Debian that mounts a partition of its own on /boot."""
    base = estate.salt_run("image.bake", "base").data
    tree = tmp_path_factory.mktemp("system") / "root"
    subprocess.run(["cp", "--archive", estate.host.layers / base["layers"][0]["digest"] / "fs", tree], check=True)
    (tree / "etc/fstab").write_text("UUID=1 / ext4 defaults 0 1\nLABEL=BOOT /boot ext4\nLABEL=EFI /boot/efi vfat\n")
    return tree


@pytest.fixture(scope="module")
def qcow2(system, tmp_path_factory) -> Path:
    """A cloud image: an EFI partition, and the root."""
    place = tmp_path_factory.mktemp("disk")
    root = disks.ext4(system, place / "root.ext4", SIZE)
    raw = disks.disk(place / "disk.raw", (disks.ESP_TYPE, b""), (disks.ROOT_TYPE, root))
    root.unlink()
    found = disks.convert(raw, place / "debian.qcow2", "qcow2", "-c")
    raw.unlink()
    return found


def with_recipe(estate, disk: Path, more: str = "") -> None:
    text = f"    cloud:\n      from: {{disk: {disk}{more}}}\n      bake_id: cloud.tests.example.com\n"
    text += "      states: [small]\n"
    file = estate.pillar / "immutable.sls"
    file.write_text(file.read_text().replace("    web:\n", f"{text}    web:\n", 1))
    state = {"/etc/packed": {"file.managed": [{"contents": "yes"}]}}
    (estate.states / "small/init.sls").write_text(json.dumps(state))


def loops() -> list[str]:
    """Return the files that loop devices of this host read."""
    listed = subprocess.run(["losetup", "--list", "--noheadings", "--output=BACK-FILE"], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "disk" in line]


def refused(estate) -> str:
    answer = estate.salt_run("image.bake", "cloud", check=False)
    assert answer.returncode == 1
    return answer.stdout + answer.stderr


def test_a_cloud_image_becomes_an_image(estate, system, qcow2, nothing_is_left):
    with_recipe(estate, qcow2)
    baked = estate.salt_run("image.bake", "cloud").data
    root = estate.host.layers / baked["layers"][0]["digest"] / "fs"
    assert baked["layers"][0]["what"] == f"disk {qcow2}"
    assert baked["packages"] > 50
    assert (root / "etc/fstab").read_text() == "" and not list((root / "dev").iterdir())
    assert [warning for warning in baked["warnings"] if "partitions" in warning] == [
        f"disk {qcow2}: what its other partitions have in /boot is not in the image"
    ]
    for path in ("usr/bin/passwd", "usr/bin/python3", "etc/shadow"):
        was, there = (place / path for place in (system, root))
        assert (was.lstat().st_mode, was.lstat().st_uid) == (there.lstat().st_mode, there.lstat().st_uid)
    assert estate.salt_run("image.bake", "cloud").data["cached"]
    assert loops() == []
    nothing_is_left()


def test_a_bake_that_is_killed_leaves_no_mount_and_no_loop_device(estate, qcow2, tmp_path, nothing_is_left):
    copy = tmp_path / "disk.raw"
    disks.convert(qcow2, copy, "raw")
    with copy.open("r+b") as file:  # another content, which no layer has
        file.write(b"x")
    with_recipe(estate, copy)
    with estate.popen("image.bake", "cloud") as process:
        wait_for(lambda: process.poll() is not None or bool(loops()), 60, every=0.01)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
    file = estate.pillar / "immutable.sls"
    file.write_text(file.read_text().replace(f"{{disk: {copy}}}", f"{{disk: {copy}, partition: 1}}"))
    assert "partition 1 holds nothing that is known, and a root is read from ext2" in refused(estate)
    assert loops() == []
    nothing_is_left()


def test_other_file_systems_are_read_or_named(estate, tmp_path, nothing_is_left):
    small = tmp_path / "small"
    for name in ("etc", "usr", "var"):
        (small / "root" / name).mkdir(parents=True)
    (small / "root/etc/os-release").write_text("PRETTY_NAME=Small\n")
    known = [kind for kind in ("btrfs", "xfs") if shutil.which(f"mkfs.{kind}") and kind in _kernel()]
    parts = {
        "btrfs": lambda: disks.btrfs(small, tmp_path / "btrfs", 128),
        "xfs": lambda: disks.xfs(tmp_path / "xfs", 320),
    }
    luks = b"LUKS\xba\xbe" + (1).to_bytes(2, "big") + bytes(1000)
    raw = disks.disk(tmp_path / "disk.raw", *((disks.DATA_TYPE, parts[kind]()) for kind in known), ("linux", luks))
    with_recipe(estate, raw)
    said = refused(estate)
    if "btrfs" in known:
        assert "it has no /usr/bin/python3" in said, "the root in a subvolume was found and copied"
    else:
        assert "is encrypted, and only plain partitions are read" in said
    assert loops() == []
    nothing_is_left()


def _kernel() -> str:
    return Path("/proc/filesystems").read_text()
