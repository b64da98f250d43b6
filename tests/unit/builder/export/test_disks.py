"""The partitions of a disk, that two exports are equal, what an image needs to boot, and what runs before its init."""

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

from saltext.immutable.builder.export import boot, disk, initrd_archive, squashfs, tree

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
    """An image of one layer, with small versions of all files that a disk needs."""
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
    return disk.require(image, tree.merged(image.layers))


# What boots


@tools
def test_the_kernel_and_what_mounts_the_root_are_found(image):
    boots = found(image)
    assert [boots.kernel.vmlinuz.read_text(), boots.kernel.initrd.read_text(), boots.loader.read_text()] == [
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
    ("gone", "missing"),
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
def test_a_missing_file_is_named_with_its_package(image, gone, missing):
    (image.layers[0] / gone).unlink()
    with pytest.raises(
        CommandExecutionError, match=f"web@3f2a9c1d04be cannot boot, it has {missing}.*packages of the recipe"
    ):
        found(image)


@tools
def test_the_newest_kernel_boots(image):
    for version, text in (("6.1.0-10-cloud-amd64", "newer"), ("6.9.0-1-cloud-amd64", "without a RAM disk")):
        put(image.layers[0] / f"boot/vmlinuz-{version}", text)
        put(image.layers[0] / f"lib/modules/{version}/modules.dep.bin")
        put(image.layers[0] / f"lib/modules/{version}/modules.dep")
    put(image.layers[0] / "boot/initrd.img-6.1.0-10-cloud-amd64")
    boots = found(image)
    assert (boots.kernel.version, boots.kernel.vmlinuz.read_text()) == ("6.1.0-10-cloud-amd64", "newer")
    assert list(boots.modules) == ["6.1.0-10-cloud-amd64/modules.dep.bin"], "its squashfs is no module"


@tools
def test_a_recipe_with_a_writable_root_is_refused(image):
    with pytest.raises(CommandExecutionError, match="has read_only: false"):
        found(replace(image, read_only=False))


def test_a_program_that_is_missing_is_named_with_its_package(image, monkeypatch):
    monkeypatch.setitem(disk.PROGRAMS, "no-such", "some-package")
    with pytest.raises(
        CommandExecutionError, match="no-such is not installed on this host; run apt-get install some-package"
    ):
        for program, package in disk.PROGRAMS.items():
            disk.find(program, package)


# The disk


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The disk of a small image; the layer is beside it."""
    place = tmp_path_factory.mktemp("disk") / "disk"
    return write(place, small(place.with_name("layer")))


def write(place: Path, image: disk.Disk) -> Path:
    place.touch()
    disk.write(place, image, lambda entry: None)
    return place


def output_of(*words: object) -> str:
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
def test_a_disk_has_three_partitions_and_the_root_is_marked_read_only(written):
    table = json.loads(output_of("sfdisk", "--json", written))["partitiontable"]
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
def test_the_first_partition_holds_loader_and_kernel(written):
    drive = f"{written}@@{MB}"
    assert output_of("mcopy", "-n", "-i", drive, "::/EFI/BOOT/BOOTX64.EFI", "-") == "loader"
    assert output_of("mcopy", "-n", "-i", drive, "::/immutable/vmlinuz", "-") == "kernel"
    entry = output_of("mcopy", "-n", "-i", drive, "::/loader/entries/immutable.conf", "-")
    assert f"root=PARTUUID={boot.part_uuid(DIGEST, 'root')}" in entry
    assert "editor no" in output_of("mcopy", "-n", "-i", drive, "::/loader/loader.conf", "-")


def part(file: Path, number: int) -> Path:
    """Return a partition of a disk as a file."""
    about = json.loads(output_of("sfdisk", "--json", file))["partitiontable"]["partitions"][number]
    place = file.with_name(f"part-{number}")
    numbers = [f"skip={about['start'] * 512}", f"count={about['size'] * 512}", "iflag=skip_bytes,count_bytes"]
    output_of("dd", f"if={file}", f"of={place}", "bs=1M", "conv=sparse", *numbers)
    return place


@tools
def test_the_second_partition_is_the_squashfs_of_the_image(written, tmp_path):
    root, alone = part(written, 1).read_bytes(), tmp_path / "alone"
    alone.touch()
    squashfs.write(alone, [written.with_name("layer")], 1_700_000_000.5, lambda entry: None)
    assert root.startswith(alone.read_bytes())
    assert output_of("unsquashfs", "-cat", alone, f"boot/vmlinuz-{VERSION}") == "kernel"


@tools
def test_the_third_partition_is_an_empty_file_system_that_can_grow(written):
    data = part(written, 2)
    assert data.stat().st_size == disk.DATA
    output_of("e2fsck", "-f", "-n", data)
    about = output_of("dumpe2fs", "-h", data)
    assert "resize_inode" in about
    assert boot.part_uuid(DIGEST, "data") in about


# The initial RAM disk


def test_the_added_ram_disk_is_a_cpio_archive():
    modules = {f"{VERSION}/modules.dep.bin": b"odd"}
    entries = unpacked(initrd_archive.archive(modules))
    assert entries[f"immutable/lib/modules/{VERSION}/modules.dep.bin"] == b"odd"
    assert entries["immutable/boot.py"] == Path(boot.__file__).read_bytes()
    assert b"mountroot()" in entries["scripts/immutable"]
    names = list(entries)
    assert all(names.index(str(Path(name).parent)) < names.index(name) for name in names if "/" in name)


def test_its_length_lets_another_archive_follow():
    assert [len(initrd_archive.cpio({"a": bytes(size)})) % 4 for size in range(8)] == [0] * 8


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


def test_boot_imports_the_standard_library_only():
    source = Path(boot.__file__).read_text()
    assert "saltext." not in source.replace("saltext-immutable", "")
    compile(source, "boot.py", "exec")


def test_a_directory_below_var_needs_no_overlay():
    assert boot.overlays(["/var/lib/x", "/srv/data", "/variety"]) == {
        "/var": "var",
        "/srv/data": "writable-0",
        "/variety": "writable-1",
    }


@pytest.mark.parametrize(("text", "why"), [("id: web", "no JSON"), ("[]", "no mapping"), ("", "no JSON")])
def test_a_machine_conf_that_is_no_mapping_is_an_error(text, why):
    with pytest.raises(SystemExit, match=f"machine.conf: it is {why}"):
        boot.config(text, "machine.conf")


def test_own_files_of_a_machine(tmp_path):
    for path, text in {boot.MACHINE: "", "etc/machine-id": "", "etc/hosts": "127.0.0.1 localhost\n"}.items():
        put(tmp_path / path, text)
    config = {"id": "web-1.example.com", "master": "10.0.0.1"}
    files = boot.own_files(tmp_path, config, "0123")
    assert json.loads(files[boot.MACHINE]) == config
    assert files["etc/machine-id"] == "0123\n"
    assert files["etc/hosts"] == "127.0.0.1 localhost\n127.0.1.1 web-1.example.com web-1\n"
    assert "etc/resolv.conf" not in files, "the image has none to mount it over"


def test_a_machine_without_machine_conf_has_empty_config(tmp_path):
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
def test_resolv_conf_points_to_systemd_resolved_where_the_image_has_none(tmp_path, text, resolved, shown):
    put(tmp_path / "etc/resolv.conf", text)
    if resolved:
        put(tmp_path / "lib/systemd/systemd-resolved")
    assert ("etc/resolv.conf" in boot.own_files(tmp_path, {}, "0123")) is shown


def test_the_network_configuration_of_an_image_stays(tmp_path):
    (file,) = boot.network_files(tmp_path)
    assert file.startswith("run/systemd/network/")
    put(tmp_path / "etc/systemd/network/10-lan.network")
    assert boot.network_files(tmp_path) == {}
