"""A disk that boots: in software emulation, with OVMF, to a minion that answers; and after its power was cut.

Its kernel has fs-verity, so that is tried here as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fs_verity
import pytest
import salt.config
from support.estate import Estate, wait_for
from support.exports import killed_export
from support.slices import full

from saltext.immutable.machines import network
from saltext.immutable.minions import Minions, machine_config

ID = "web-disk.tests.example.com"
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
MISSING = [name for name in ("qemu-system-x86_64", "qemu-img", "mcopy", "sfdisk") if not shutil.which(name)]
BOOTS_WITHIN = 600.0
ANSWERS_WITHIN = 120
"""Seconds for an answer: a machine in emulation still starts its units when its minion answers the first job."""

pytestmark = [
    full("makes disks and boots one in emulation", minutes=3),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: apt-get install qemu-system-x86 qemu-utils"),
    pytest.mark.skipif(not FIRMWARE.exists(), reason=f"needs {FIRMWARE}: apt-get install ovmf"),
]


@pytest.fixture(scope="module")
def image(estate: Estate) -> dict[str, Any]:
    """The image of recipe ``bootable``."""
    return dict(estate.salt_run("image.bake", "bootable").data)


@pytest.fixture(scope="module")
def exported(estate: Estate, image, tmp_path_factory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Return what exports it."""
    folder = tmp_path_factory.mktemp("disks")

    def export(name: str, format: str = "raw") -> tuple[Path, dict[str, Any]]:
        target = ("image.export", image["image"], f"format={format}", f"target={folder / name}")
        return folder / name, dict(estate.salt_run(*target).data)

    yield export
    shutil.rmtree(folder)


@pytest.fixture
def told(estate: Estate) -> Iterator[dict[str, Any]]:
    """What the machine is told; its key is expected once, and forgotten at the end."""
    opts = salt.config.master_config(str(estate.etc / "master"))
    minions = Minions(opts)
    with ExitStack() as undo:
        undo.callback(minions.close)
        undo.callback(minions.forget, ID)
        minions.expect(ID)
        yield {"id": ID, **machine_config(opts, network.gateway(estate.net))}


@dataclass(frozen=True)
class Machine:
    """A machine in emulation."""

    estate: Estate
    console: Path
    process: subprocess.Popen[bytes]

    def ask(self, *words: str, check: bool = True, within: int = ANSWERS_WITHIN) -> Any:
        """Return what the minion answers within so many seconds."""
        answer = self.estate.salt(ID, *words, f"--timeout={within}", check=check)
        return (answer.data or {}).get(ID, answer.stdout)

    def wait(self) -> None:
        """Return when it answers a job."""
        try:
            wait_for(self._answers, BOOTS_WITHIN, 2.0)
        except TimeoutError as err:
            raise AssertionError(self.console.read_bytes()[-6000:].decode(errors="replace")) from err

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.console.read_bytes()[-6000:].decode(errors="replace")
        with suppress(AttributeError):
            return self.ask("test.ping", check=False, within=5) is True
        return False


@contextmanager
def running(estate: Estate, disk: Path, *options: str) -> Iterator[Machine]:
    """Run a machine from a disk; at the end its power is cut."""
    console = disk.with_name("console")
    words = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]
    words += ["-m", "1024", "-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{console}"]
    words += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"]
    words += ["-drive", f"file={disk},if=virtio,format=raw", "-nic", "user,model=virtio-net-pci", *options]
    with (disk.with_name("qemu")).open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            yield Machine(estate, console, process)
        finally:
            process.kill()


def test_two_exports_are_the_same_bytes_and_qcow2_holds_them(exported):
    (first, told), (second, again) = exported("first"), exported("second")
    assert told["sha256"] == again["sha256"]
    assert told["bytes"] == first.stat().st_size
    packed, _ = exported("packed", "qcow2")
    words = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", first, packed]
    assert "identical" in subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert packed.stat().st_size < first.stat().st_size
    for place in (first, second, packed):
        place.unlink()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_killed_export_leaves_no_disk_and_the_next_one_cleans(estate, image, tmp_path, format):
    killed_export(estate, image["image"], format, tmp_path)


def test_it_boots_to_a_sealed_minion_grows_and_survives_a_power_cut(estate, image, exported, told):
    disk, _ = exported("disk")
    told_here = disk.with_name("machine.conf")
    told_here.write_text(json.dumps(told))
    subprocess.run(["mcopy", "-i", f"{disk}@@1M", told_here, "::/immutable/machine.conf"], check=True)
    os.truncate(disk, 2 << 30)
    with running(estate, disk) as machine:
        machine.wait()
        status = machine.ask("immutable.status")
        assert (status["digest"], status["sealed"], status["problems"]) == (image["digest"], True, [])
        refused = machine.ask("state.highstate", check=False)
        assert "sealed" in str(refused)
        mounts = machine.ask("mount.active")
        assert (mounts["/"]["fstype"], mounts["/"]["opts"][0]) == ("squashfs", "ro")
        assert {mounts[path]["fstype"] for path in ("/var", "/srv")} == {"overlay"}
        assert "ro" in mounts["/etc/salt/minion.d/zzz-machine.conf"]["opts"]
        assert int(machine.ask("disk.usage")["/var"]["1K-blocks"]) > 1 << 20, "of a disk of 2 GB"
        assert machine.ask("grains.get", "host") == "web-disk"
        assert machine.ask("immutable.drift", f"digest={image['digest']}")["drift"] == []
        identity = machine.ask("grains.get", "machine_id")
        assert identity
    # Another way to tell it, for one start; key, id and what it wrote are still there.
    subprocess.run(["mdel", "-i", f"{disk}@@1M", "::/immutable/machine.conf"], check=True)
    with running(estate, disk, "-fw_cfg", f"name=opt/immutable/machine.conf,file={told_here}") as machine:
        machine.wait()
        assert machine.ask("grains.get", "machine_id") == identity
        assert machine.ask("immutable.drift", f"digest={image['digest']}")["drift"] == []


def test_the_kernel_refuses_to_read_a_byte_that_flipped_below_a_layer(estate, exported, tmp_path):
    disk, _ = exported("checked")
    drive, entry = f"{disk}@@1M", "::/loader/entries/immutable.conf"
    told = subprocess.run(["mtype", "-i", drive, entry], check=True, capture_output=True).stdout.rstrip()
    first_program = told + b" init=/opt/salt/bin/python -- /dev/vdb\n"
    subprocess.run(["mcopy", "-o", "-i", drive, "-", entry], check=True, input=first_program)
    program, checked = tmp_path / "program", tmp_path / "checked"
    text = Path(fs_verity.__file__).read_bytes()
    program.write_bytes(text + b"\n" * (-len(text) % 512))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "verity", "-b", "4096", checked, "64M"], check=True)
    drives = [word for file in (program, checked) for word in ("-drive", f"file={file},if=virtio,format=raw")]
    with running(estate, disk, *drives) as machine:
        machine.process.wait(BOOTS_WITHIN)
    console = machine.console.read_text(errors="replace")
    said = re.search(f"{fs_verity.BEGINS}(.*)", console)
    assert said, console[-6000:]
    found = json.loads(said[1])
    assert (found["verity"], found["again"]) == ({"files": 101, "why": ""}, "")
    assert found["write"].startswith("PermissionError")
    assert (found["before"], found["unchanged"], found["read"]) == (True, "", ""), "mounted again, it is what it was"
    assert found["after"] == "OSError: [Errno 5] Input/output error"
    assert "fs/etc/motd cannot be read: Input/output error" in found["verify"]
    disk.unlink()
