"""A disk is what it says, twice the same; what an image lacks to boot is named; what is done before its init."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.export import boot, disk, initrd, squashfs, tree

DIGEST = "3f2a9c1d04be" + "0" * 52
VERSION = "6.1.0-9-cloud-amd64"
MB = 1 << 20
PROGRAMS = (*disk.PROGRAMS, "mcopy", "mdir", "unsquashfs", "e2fsck", "dumpe2fs")
PATHS = {
    "usr/sbin/init": "init",
    "usr/bin/systemd-repart": "repart",
    "usr/lib/systemd/systemd-networkd": "networkd",
    "usr/lib/systemd/boot/efi/systemd-bootx64.efi": "loader",
    f"boot/vmlinuz-{VERSION}": "kernel",
    f"boot/initrd.img-{VERSION}": "ram disk",
    f"usr/lib/modules/{VERSION}/modules.dep": "kernel/fs/ext4/ext4.ko:\n"
    "kernel/fs/squashfs/squashfs.ko: kernel/lib/z.ko\n",
    f"usr/lib/modules/{VERSION}/modules.dep.bin": "index",
    f"usr/lib/modules/{VERSION}/kernel/fs/squashfs/squashfs.ko": "squashfs",
    f"usr/lib/modules/{VERSION}/kernel/lib/z.ko": "z",
    f"usr/lib/modules/{VERSION}/kernel/fs/ext4/ext4.ko": "ext4",
}

tools = pytest.mark.skipif(
    any(not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for program in PROGRAMS),
    reason=f"needs {', '.join(PROGRAMS)}",
)


@pytest.fixture
def image(tmp_path) -> disk.Disk:
    """An image of one layer, with all that a disk needs, in small."""
    return small(tmp_path / "layer")


def small(layer: Path) -> disk.Disk:
    for path, text in PATHS.items():
        put(layer / path, text)
    for place in (layer, *layer.rglob("*")):
        os.utime(place, (1.6e9, 1.6e9), follow_symlinks=False)
    return disk.Disk("web@3f2a9c1d04be", DIGEST, 1_700_000_000.5, True, [layer])


def put(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def found(image: disk.Disk) -> disk.Boot:
    return disk.require(image, tree.merged(image.places))


# What boots


@tools
def test_the_kernel_and_what_mounts_the_root_are_found(image):
    boots = found(image)
    assert [boots.kernel.read_text(), boots.initrd.read_text(), boots.loader.read_text()] == [
        "kernel",
        "ram disk",
        "loader",
    ]
    assert boots.modules == {
        f"{VERSION}/modules.dep.bin": b"index",
        f"{VERSION}/kernel/fs/squashfs/squashfs.ko": b"squashfs",
        f"{VERSION}/kernel/lib/z.ko": b"z",
    }


@tools
@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("usr/sbin/init", "no init.*systemd-sysv"),
        (f"boot/vmlinuz-{VERSION}", "no kernel.*linux-image-cloud-amd64"),
        (f"boot/initrd.img-{VERSION}", "no initial RAM disk.*initramfs-tools"),
        ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", "no boot loader.*systemd-boot-efi"),
        ("usr/bin/systemd-repart", "no systemd-repart, which grows the disk"),
        ("usr/lib/systemd/systemd-networkd", "no systemd-networkd"),
        (f"usr/lib/modules/{VERSION}/modules.dep.bin", f"no modules of its kernel {VERSION}"),
    ],
)
def test_what_an_image_lacks_is_named_with_what_to_write(image, gone, said):
    (image.places[0] / gone).unlink()
    with pytest.raises(CommandExecutionError, match=f"web@3f2a9c1d04be has {said}.*packages of the recipe"):
        found(image)


@tools
def test_the_newest_kernel_boots(image):
    for version, text in (("6.1.0-10-cloud-amd64", "newer"), ("6.9.0-1-cloud-amd64", "without a RAM disk")):
        put(image.places[0] / f"boot/vmlinuz-{version}", text)
        put(image.places[0] / f"lib/modules/{version}/modules.dep.bin")
        put(image.places[0] / f"lib/modules/{version}/modules.dep")
    put(image.places[0] / "boot/initrd.img-6.1.0-10-cloud-amd64")
    boots = found(image)
    assert (boots.version, boots.kernel.read_text()) == ("6.1.0-10-cloud-amd64", "newer")
    assert list(boots.modules) == ["6.1.0-10-cloud-amd64/modules.dep.bin"], "its squashfs is no module"


@tools
def test_a_root_that_is_to_be_writable_is_refused(image):
    with pytest.raises(CommandExecutionError, match="has read_only: false"):
        found(replace(image, read_only=False))


def test_a_program_that_is_missing_is_named_with_its_package(image, monkeypatch):
    monkeypatch.setitem(disk.PROGRAMS, "no-such", "some-package")
    with pytest.raises(
        CommandExecutionError, match="no-such is not installed on this host: apt-get install some-package"
    ):
        for program, package in disk.PROGRAMS.items():
            disk.find(program, package)


# The disk


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The disk of a small image, whose layer is beside it."""
    place = tmp_path_factory.mktemp("disk") / "disk"
    return write(place, small(place.with_name("layer")))


def write(place: Path, image: disk.Disk) -> Path:
    place.touch()
    disk.write(place, image, lambda entry: None)
    return place


def said(*words: object) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True, env={"PATH": path})
    return done.stdout


@tools
def test_two_disks_of_an_image_are_the_same_bytes_and_another_image_has_other_ids(written):
    again = write(written.with_name("again"), small(written.with_name("layer")))
    assert filecmp.cmp(written, again, shallow=False)
    ids = {
        boot.part_uuid(digest, part) for digest in (DIGEST, DIGEST[::-1]) for part in ("disk", "esp", "root", "data")
    }
    assert len(ids) == 8


@tools
def test_it_has_three_partitions_and_the_root_is_marked_read_only(written):
    table = json.loads(said("sfdisk", "--json", written))["partitiontable"]
    assert (table["label"], table["id"]) == ("gpt", boot.part_uuid(DIGEST, "disk").upper())
    parts = table["partitions"]
    assert [part["name"] for part in parts] == ["immutable-esp", "immutable-root", "immutable-data"]
    assert [part["uuid"].lower() for part in parts] == [
        boot.part_uuid(DIGEST, name) for name in ("esp", "root", "data")
    ]
    assert [part.get("attrs") for part in parts] == [None, "GUID:60", None]
    assert all(part["start"] % 2048 == 0 for part in parts)
    assert parts[1]["start"] == parts[0]["start"] + parts[0]["size"]


@tools
def test_the_first_holds_what_boots(written):
    drive = f"{written}@@{MB}"
    assert said("mcopy", "-n", "-i", drive, "::/EFI/BOOT/BOOTX64.EFI", "-") == "loader"
    assert said("mcopy", "-n", "-i", drive, "::/immutable/vmlinuz", "-") == "kernel"
    entry = said("mcopy", "-n", "-i", drive, "::/loader/entries/immutable.conf", "-")
    assert f"root=PARTUUID={boot.part_uuid(DIGEST, 'root')}" in entry
    assert "editor no" in said("mcopy", "-n", "-i", drive, "::/loader/loader.conf", "-")


def part(file: Path, number: int) -> Path:
    """Return a part of a disk as a file."""
    about = json.loads(said("sfdisk", "--json", file))["partitiontable"]["partitions"][number]
    place = file.with_name(f"part-{number}")
    numbers = [f"skip={about['start'] * 512}", f"count={about['size'] * 512}", "iflag=skip_bytes,count_bytes"]
    said("dd", f"if={file}", f"of={place}", "bs=1M", "conv=sparse", *numbers)
    return place


@tools
def test_the_second_is_the_squashfs_of_the_image(written, tmp_path):
    root, alone = part(written, 1).read_bytes(), tmp_path / "alone"
    alone.touch()
    squashfs.write(alone, [written.with_name("layer")], 1_700_000_000.5, lambda entry: None)
    assert root.startswith(alone.read_bytes())
    assert said("unsquashfs", "-cat", alone, f"boot/vmlinuz-{VERSION}") == "kernel"


@tools
def test_the_third_is_an_empty_file_system_that_can_grow(written):
    data = part(written, 2)
    assert data.stat().st_size == disk.DATA
    said("e2fsck", "-f", "-n", data)
    about = said("dumpe2fs", "-h", data)
    assert "resize_inode" in about
    assert boot.part_uuid(DIGEST, "data") in about


# The initial RAM disk


def test_the_kernel_can_unpack_what_is_added():
    modules = {f"{VERSION}/modules.dep.bin": b"odd"}
    entries = unpacked(initrd.archive(modules))
    assert entries[f"immutable/lib/modules/{VERSION}/modules.dep.bin"] == b"odd"
    assert entries["immutable/boot.py"] == Path(boot.__file__).read_bytes()
    assert b"mountroot()" in entries["scripts/immutable"]
    names = list(entries)
    assert all(names.index(str(Path(name).parent)) < names.index(name) for name in names if "/" in name)


def test_where_it_ends_another_archive_may_begin():
    assert [len(initrd.cpio({"a": bytes(size)})) % 4 for size in range(8)] == [0] * 8


def unpacked(data: bytes) -> dict[str, bytes]:
    """Read a cpio archive as the kernel's documentation describes it."""
    at, entries = 0, {}
    while True:
        fields = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        assert data[at : at + 6] == b"070701"
        size, length = fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        start = at + 110 + length
        start += -start % 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = data[start : start + size]
        at = start + size + -size % 4


# Before init


def test_it_is_alone_in_the_machine():
    source = Path(boot.__file__).read_text()
    assert "saltext." not in source.replace("saltext-immutable", "")
    compile(source, "boot.py", "exec")


def test_what_is_below_var_needs_no_overlay_of_its_own():
    assert boot.overlays(["/var/lib/x", "/srv/data", "/variety"]) == {
        "/var": "var",
        "/srv/data": "writable-0",
        "/variety": "writable-1",
    }


@pytest.mark.parametrize(("text", "why"), [("id: web", "no JSON"), ("[]", "no mapping"), ("", "no JSON")])
def test_what_a_machine_is_told_must_be_understood(text, why):
    with pytest.raises(SystemExit, match=f"machine.conf: it is {why}"):
        boot.config(text, "machine.conf")


def test_a_machine_has_its_own_files_over_those_of_the_image(tmp_path):
    for path, text in {boot.MACHINE: "", "etc/machine-id": "", "etc/hosts": "127.0.0.1 localhost\n"}.items():
        put(tmp_path / path, text)
    told = {"id": "web-1.example.com", "master": "10.0.0.1"}
    files = boot.own_files(tmp_path, told, "0123")
    assert json.loads(files[boot.MACHINE]) == told
    assert files["etc/machine-id"] == "0123\n"
    assert files["etc/hosts"] == "127.0.0.1 localhost\n127.0.1.1 web-1.example.com web-1\n"
    assert "etc/resolv.conf" not in files, "the image has none to mount it over"


def test_one_that_is_told_nothing_still_has_config_that_can_be_read(tmp_path):
    put(tmp_path / boot.MACHINE)
    assert boot.own_files(tmp_path, {}, "0123") == {boot.MACHINE: "{}"}


@pytest.mark.parametrize(
    ("text", "resolved", "shown"),
    [
        pytest.param("", True, True, id="an empty one leads to systemd-resolved"),
        pytest.param("", False, False, id="which must be there"),
        pytest.param("nameserver 192.0.2.1\n", True, False, id="what the image says stays"),
    ],
)
def test_names_are_asked_of_systemd_resolved(tmp_path, text, resolved, shown):
    put(tmp_path / "etc/resolv.conf", text)
    if resolved:
        put(tmp_path / "lib/systemd/systemd-resolved")
    assert ("etc/resolv.conf" in boot.own_files(tmp_path, {}, "0123")) is shown


def test_an_image_with_a_network_of_its_own_keeps_it(tmp_path):
    (file,) = boot.network_files(tmp_path)
    assert file.startswith("run/systemd/network/")
    put(tmp_path / "etc/systemd/network/10-lan.network")
    assert boot.network_files(tmp_path) == {}
