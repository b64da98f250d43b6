"""Disks of systems: which files may be one, what is on them, and which partition is the root."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError
from support import disks

from saltext.immutable.builder.sources import copy_disk_root, disk, partitions
from saltext.immutable.builder.sources.partitions import Partition

ESP = Partition(1, 1 << 20, 127_000_000, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "vfat")
ROOT = Partition(2, 1 << 28, 4_000_000_000, disks.ROOT_TYPE, "ext4", "Debian GNU/Linux 12 (bookworm)")
OTHER = Partition(3, 1 << 33, 4_000_000_000, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "xfs", "Fedora Linux 41")
BARE, LVM = replace(ROOT, system=""), replace(OTHER, system="", content="LVM2_member")
LUKS, BROKEN = replace(LVM, content="crypto_LUKS"), replace(OTHER, system="", problem="the kernel has no xfs")
tools = pytest.mark.skipif(
    not all(map(shutil.which, ("qemu-img", "mkfs.ext4", "sfdisk", "blkid"))), reason="needs qemu-img, e2fsprogs, fdisk"
)


@pytest.mark.parametrize(
    ("found", "wanted", "number"),
    [
        pytest.param([ESP, ROOT], None, 2, id="the one with an os-release"),
        pytest.param([ESP, LVM, ROOT], None, 2, id="beside LVM that holds something else"),
        pytest.param([OTHER, ROOT], None, 2, id="of two, the one whose type says so"),
        pytest.param([ESP, BARE], None, 2, id="without an os-release, the one whose type says so"),
        pytest.param([ROOT, OTHER], 3, 3, id="the one that is wanted"),
        pytest.param([replace(ROOT, number=0, kind="")], None, 0, id="a disk without partitions"),
    ],
)
def test_the_root_is_found(found, wanted, number):
    assert partitions.choose(found, wanted, "disk a").number == number


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        pytest.param(
            [OTHER, replace(OTHER, number=4)],
            None,
            r"several partitions hold a root: 3 \(xfs, 4000 MB, Fedora Linux 41\), 4 .*; write the number of one",
            id="several",
        ),
        pytest.param([ESP, LVM], None, "partition 3 is LVM, and only plain .*partition: NUMBER .*tarball", id="LVM"),
        pytest.param([ESP, LUKS], None, "partition 3 is encrypted", id="encrypted"),
        pytest.param([ESP, BROKEN], None, r"partition 3 \(xfs\) cannot be mounted: the kernel has no xfs", id="kernel"),
        pytest.param([ESP], None, r"none of its partitions has an /etc/os-release: 1 \(vfat, 127 MB\)", id="none"),
        pytest.param(
            [Partition(0, 0, 67_000_000)], None, r"none of .*: the whole disk \(unknown, 67 MB\)", id="no file system"
        ),
        pytest.param([], None, "none of its partitions has an /etc/os-release: none", id="no partitions"),
        pytest.param([ESP, ROOT], 7, "it has no partition 7; name one of 1", id="a number that is not there"),
        pytest.param([ESP, ROOT], 1, "partition 1 holds vfat, and a root is read from ext2", id="no root"),
        pytest.param([ROOT, LVM], 3, "partition 3 is LVM", id="LVM by its number"),
    ],
)
def test_the_way_out_is_named_where_there_is_no_root(found, wanted, error):
    with pytest.raises(CommandExecutionError, match=f"disk a: {error}"):
        partitions.choose(found, wanted, "disk a")


@pytest.mark.parametrize(
    ("fstab", "kept", "points"),
    [
        pytest.param("UUID=1 / ext4 defaults 0 1\n", "", ["/"], id="the root"),
        pytest.param(
            "# a\nLABEL=BOOT /boot ext4\nPARTUUID=2 /boot/efi vfat\ntmpfs /tmp tmpfs\n/dev/sdb1 none swap\n",
            "# a\ntmpfs /tmp tmpfs\n",
            ["/boot", "/boot/efi", "none"],
            id="partitions go, the rest stays",
        ),
        pytest.param("host:/home /home nfs\nUUID=1\n", "host:/home /home nfs\nUUID=1\n", [], id="no partition"),
    ],
)
def test_lines_about_partitions_go(fstab, kept, points):
    assert partitions.without_devices(fstab) == (kept, points)


@pytest.fixture
def system(tmp_path) -> Path:
    root = tmp_path / "system"
    for name in ("etc", "usr/bin", "var", "dev", "lost+found"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text('NAME=Debian\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    (root / "usr/bin/python3").touch()
    return root


@tools
def test_partitions_and_what_they_hold_are_read_from_a_disk(system, tmp_path):
    raw = disks.disk(
        tmp_path / "disk2.raw", (disks.ESP_TYPE, b""), (disks.ROOT_TYPE, disks.ext4(system, tmp_path / "fs", 16))
    )
    esp, root = copy_disk_root._partitions(str(raw))
    assert (esp.number, esp.content) == (1, "")
    assert root == Partition(2, 2 << 20, 16 << 20, disks.ROOT_TYPE, "ext4")
    [whole] = copy_disk_root._partitions(str(tmp_path / "fs"))
    assert (whole.number, whole.content) == (0, "ext4")
    old = disks.disk(tmp_path / "mbr.raw", ("83", tmp_path / "fs"), label="dos")
    assert [(one.number, one.kind, one.content) for one in copy_disk_root._partitions(str(old))] == [(1, "83", "ext4")]


class NoCgroup:
    def start_command(self) -> list[str]:
        return []


@tools
@pytest.mark.parametrize(
    ("kind", "options"), [("raw", ()), ("qcow2", ("-c",)), ("vmdk", ("-o", "subformat=streamOptimized"))]
)
def test_each_format_is_read(tmp_path, kind, options):
    raw = disks.disk(tmp_path / "disk.raw", (disks.DATA_TYPE, b"something"))
    file = raw if kind == "raw" else disks.convert(raw, tmp_path / f"disk.{kind}", kind, *options)
    found = disk._raw(file, tmp_path / "out", NoCgroup())
    assert (found == raw) == (kind == "raw"), "what is raw already is not copied"
    assert found.read_bytes()[: raw.stat().st_size] == raw.read_bytes()


@pytest.mark.parametrize(
    ("about", "error"),
    [
        pytest.param({"format": "qcow2", "backing-filename": "/etc/group"}, "refers to /etc/group", id="backing file"),
        pytest.param(
            {"format": "qcow2", "format-specific": {"data": {"data-file": "/dev/sda"}}}, "refers to /dev/sda", id="data"
        ),
        pytest.param(
            {"format": "vmdk", "format-specific": {"data": {"extents": [{"filename": "/srv/b-flat.vmdk"}]}}},
            "refers to /srv/b-flat.vmdk",
            id="extent",
        ),
        pytest.param({"format": "vdi"}, "is vdi, and disks are read from qcow2, raw, vmdk; make a qcow2", id="format"),
    ],
)
def test_a_disk_that_would_read_other_files_of_the_builder_is_refused(about, error):
    with pytest.raises(CommandExecutionError, match=error):
        disk._require_alone(Path("/srv/a"), {"filename": "/srv/a", **about})


VMDK = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

RW 2048 FLAT "{}" 0
"""


@tools
@pytest.mark.parametrize("kind", ["vmdk", "vmdk without a comment", "vmdk within", "qcow2"])
def test_what_a_part_of_a_disk_refers_to_is_not_even_opened(tmp_path, kind):
    file, other = tmp_path / "disk", tmp_path / "other"
    text = VMDK.format(other).removeprefix("# Disk DescriptorFile\n" if kind == "vmdk without a comment" else "")
    if kind == "qcow2":
        disk.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={other}", file, "1M"])
        other.unlink()
    elif kind == "vmdk within":
        file.write_bytes(b"KDMV" + (3).to_bytes(4, "little") + bytes(20) + (1).to_bytes(8, "little") + bytes(476))
    else:
        file.write_text(text)
    os.mkfifo(other)  # to open it would take for ever
    with pytest.raises(CommandExecutionError, match="only a part of a disk: it refers to other files, .*qemu-img conv"):
        disk._raw(file, tmp_path / "out", NoCgroup())


def test_a_disk_that_changes_while_its_sum_is_taken_gives_no_layer(tmp_path, monkeypatch):
    file = tmp_path / "disk"
    file.write_text("old")

    def written(_path):
        file.write_text("newer")
        return "a"

    monkeypatch.setattr(disk.manifest, "sha256", written)
    monkeypatch.setattr(disk, "_raw", lambda file, *_: file)
    monkeypatch.setattr(disk.program, "call", lambda *_: [])
    with pytest.raises(CommandExecutionError, match="changed while it was read; bake again"):
        disk.build(None, tmp_path, None, {"disk": str(file), "sha256": "a", "partition": None, "what": "disk"})


def test_a_disk_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SaltInvocationError, match=f"from:disk: there is no file {tmp_path}/a on the builder"):
        disk.content({"disk": f"{tmp_path}/a"})


@pytest.fixture
def applied(tmp_path, monkeypatch, system):
    """Return what copies the root of a disk whose partitions are folders; mounts are links to these."""
    monkeypatch.setattr(copy_disk_root, "_partitions", lambda disk: [ESP, BARE])

    @contextmanager
    def mounted(_disk, one, place):
        place.rmdir()
        place.symlink_to(system)
        yield
        place.unlink()
        place.mkdir()

    monkeypatch.setattr(copy_disk_root, "_mounted", mounted)
    monkeypatch.setattr(copy_disk_root, "run", lambda words, **_: shutil.copytree(words[-2], words[-1], symlinks=True))
    work = tmp_path / "work"
    work.mkdir()
    order = {"disk": "d", "workspace": str(work), "partition": None, "what": "disk a"}
    return lambda: copy_disk_root.apply(order), work / "fs"


def test_what_belongs_to_the_disk_is_left_out(applied, system):
    apply, tree = applied
    (system / "etc/fstab").write_text("UUID=1 / ext4\nLABEL=BOOT /boot ext4\ntmpfs /tmp tmpfs\n")
    (system / "dev/console").touch()
    assert apply()[-1] == "disk a: what its other partitions have in /boot is not in the image"
    assert (tree / "etc/fstab").read_text() == "tmpfs /tmp tmpfs\n"
    assert not list((tree / "dev").iterdir()) and not (tree / "lost+found").exists()


def test_a_system_without_its_var_is_refused(applied, system):
    (system / "etc/fstab").write_text("UUID=1 / ext4\nUUID=2 /var xfs\n")
    with pytest.raises(CommandExecutionError, match="disk a: its /var is on another partition or subvolume"):
        applied[0]()


def test_sockets_go_and_devices_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as bound, suppress(OSError):
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            bound.bind("log")
        finally:
            os.chdir(here)
        copy_disk_root._tidy_file(str(tmp_path / "log"), "disk a: /log")
        assert not (tmp_path / "log").exists()
    with pytest.raises(CommandExecutionError, match="disk a: /null is a device"):
        copy_disk_root._tidy_file("/dev/null", "disk a: /null")


@pytest.mark.skipif(os.geteuid() != 0, reason="sets attributes of trusted: needs root")
@pytest.mark.parametrize("path", ["", "usr", "usr/bin/python3"])
def test_attributes_of_overlay_are_refused(applied, system, monkeypatch, path):
    apply, tree = applied
    copied = copy_disk_root.run

    def copy(words, **more):
        copied(words, **more)
        os.setxattr(tree / path, "trusted.overlay.redirect", b"/etc")

    monkeypatch.setattr(copy_disk_root, "run", copy)
    with pytest.raises(CommandExecutionError, match=f"disk a: /{path or '.'} has the attribute trusted.overlay.redi"):
        apply()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param("mount: /m: unknown filesystem type 'xfs'.", r"has no xfs; .*modprobe xfs", id="kernel"),
        pytest.param("mount: /m: failed to setup loop device for /d.", "let the builder have loop devices", id="loop"),
        pytest.param(
            "mount: /m: cannot mount /dev/loop0 read-only.", "check the file system .*shut down cleanly", id="journal"
        ),
    ],
)
def test_a_mount_that_fails_says_what_to_do(said, error):
    with pytest.raises(CommandExecutionError, match=error):
        raise copy_disk_root._unmounted("xfs", said)


def test_a_subvolume_with_the_root_is_found_in_btrfs(system, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    system.rename(top / "root")
    btrfs = replace(ROOT, content="btrfs")
    assert copy_disk_root._root(top, btrfs) == top / "root"
    assert copy_disk_root._root(top, ROOT) == top, "a folder is no root in other file systems"
    assert copy_disk_root._system(copy_disk_root._root(top, btrfs)) == "Debian GNU/Linux 12"


def test_a_subvolume_that_is_a_link_to_another_root_is_none(system, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    (top / "root").symlink_to(system)
    (top / "@").symlink_to("/")
    assert copy_disk_root._root(top, replace(ROOT, content="btrfs")) == top


def test_a_file_system_that_cannot_be_read_is_no_root(monkeypatch, tmp_path):
    def unreadable(_root):
        raise OSError(117, "Structure needs cleaning")

    @contextmanager
    def mounted(*_):
        yield

    monkeypatch.setattr(copy_disk_root, "_mounted", mounted)
    monkeypatch.setattr(copy_disk_root, "_system", unreadable)
    found = copy_disk_root._looked_into("d", BARE, tmp_path, None)
    assert found.problem == "Structure needs cleaning; check the file system (fsck)"


@pytest.mark.parametrize(("content", "option"), [("ext3", "errors=continue"), ("xfs", "nouuid"), ("btrfs", "loop")])
def test_no_file_system_of_a_disk_gets_rights(monkeypatch, tmp_path, content, option):
    said: list[list[str]] = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(copy_disk_root, "run", lambda words, **_: said.append(words) or done)
    with copy_disk_root._mounted("d", replace(ROOT, content=content), tmp_path):
        options = said[0][2].removeprefix("--options=").split(",")
    assert {"ro", "nodev", "nosuid", "noexec", option} <= set(options)


@pytest.mark.parametrize("target", ["fstab", "/etc/fstab"])
def test_an_fstab_that_is_a_link_is_none(system, target):
    (system / "etc/fstab").symlink_to(target)
    assert copy_disk_root._fstab(system) == ""


def test_an_os_release_without_end_is_read_in_part(system):
    os.truncate(system / "etc/os-release", 1 << 40)
    assert copy_disk_root._system(system) == "Debian GNU/Linux 12"
