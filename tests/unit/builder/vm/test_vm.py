"""What a virtual machine of a builder is made of, and how it is set up before its init."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.builder.export import kernel
from saltext.immutable.builder.states import deferred, state_run, trace
from saltext.immutable.builder.vm import bake, ramdisk, setup
from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host
from saltext.immutable.machines import qemu
from saltext.immutable.machines.description import Machine
from saltext.immutable.spec.model import VirtualMachine

WANTED = {
    "files": {"/run/pki/minion.pem": "-----BEGIN RSA PRIVATE KEY-----", "/run/systemd/system/a.service": "[Unit]"},
    "mounts": {"/etc/salt/minion.d/zzz.conf": "{}", "/usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n"},
    "caches": ["/var/cache/apt/archives"],
    "network": "",
    **ramdisk.agent(),
}
DESCRIPTION = Machine("web-bake.example.com", "", (), {"id": "web-bake.example.com"}, "im0", "10.0.0.0/24")


TEST = {"module_and_function": "test.ping", "assertion": "assertTrue"}


def recipe(**keys):
    pillar = {"immutable": {"recipes": {"web": {"from": {"debian": "bookworm"}, **keys}}}}
    return spec.definitions(pillar).recipes["web"]


def test_the_machine_of_a_recipe():
    assert recipe(tests={"vm": [TEST]}, vm={"cpus": 3}).vm.cpus == 3
    assert recipe().vm == VirtualMachine(memory=1 << 30, cpus=2)
    files = {"vmlinuz": "/boot/vmlinuz", "initrd": "/boot/initrd.img"}
    found = recipe(bake_in="vm", vm={"memory": "2G", "cpus": 4}, kernel=files).vm
    assert found == VirtualMachine(2 << 30, 4, "/boot/vmlinuz", "/boot/initrd.img")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kernel": {"vmlinuz": "/boot/vmlinuz"}}, "kernel:initrd: a kernel needs both vmlinuz and initrd; name"),
        ({"kernel": {"initrd": "/boot/initrd"}}, "kernel:vmlinuz: a kernel needs both"),
        ({"kernel": {"vmlinuz": "vmlinuz", "initrd": "/i"}}, "kernel:vmlinuz: 'vmlinuz' is no absolute path"),
        ({"vm": {"memory": "1M"}}, "vm:memory: must be 256M to 1024G"),
        ({"vm": {"cpus": 0}}, "vm:cpus: must be"),
        ({"vm": {"disk": "1G"}}, "vm:disk: no such key"),
        ({"vm": {"cpus": 4}}, "web:vm: neither states nor tests run in a virtual machine; write bake_in: vm"),
        ({"kernel": {"vmlinuz": "/k", "initrd": "/i"}}, "web:kernel: only states that run in a virtual machine"),
        ({"tests": {"vm": [TEST]}, "read_only": False}, "web:tests:vm: they run on a disk, which needs a root that is"),
    ],
)  # fmt: skip
def test_wrong_machines_are_refused_when_the_pillar_is_read(keys, says):
    with pytest.raises(SaltInvocationError, match=says):
        recipe(**keys)


def order(**vm):
    return {"what": "states of web", "vm": {"vmlinuz": None, "initrd": None, **vm}}


def test_the_kernel_is_the_newest_of_the_layers_or_one_of_the_builder(tmp_path):
    with pytest.raises(CommandExecutionError, match="the stack below states of web cannot boot, it has no kernel"):
        bake._kernel(order(), {})
    with pytest.raises(CommandExecutionError, match=f"kernel:initrd: {tmp_path}/i is no file of the builder; name one"):
        (tmp_path / "k").touch()
        bake._kernel(order(vmlinuz=f"{tmp_path}/k", initrd=f"{tmp_path}/i"), {})
    (tmp_path / "i").touch()
    found = kernel.Kernel("", tmp_path / "k", tmp_path / "i")
    assert bake._kernel(order(vmlinuz=f"{tmp_path}/k", initrd=f"{tmp_path}/i"), {}) == (found, {})


def test_the_content_of_a_kernel_of_the_builder(tmp_path):
    files = {name: str(tmp_path / name) for name in ("vmlinuz", "initrd")}
    with pytest.raises(CommandExecutionError, match="kernel:vmlinuz: .* is no file of the builder"):
        bake.kernel_content(files)
    for name in files:
        (tmp_path / name).write_text(name)
    before = bake.kernel_content(files)
    (tmp_path / "initrd").write_text("another")
    after = bake.kernel_content(files)
    assert (before[0], len(after)) == (after[0], 2) and before[1] != after[1]


def test_a_module_brings_those_that_it_needs():
    modules_dep = "kernel/a/virtio-net.ko.xz: kernel/b/failover.ko.xz\nkernel/a/ext4.ko:\nkernel/b/failover.ko.xz:\n"
    assert kernel._dependencies(modules_dep, ["virtio_net"]) == ["kernel/a/virtio-net.ko.xz", "kernel/b/failover.ko.xz"]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (["modules.dep", "modules.dep.bin"], "has no /lib/modules/6.1/kernel/ext4.ko, which its modules.dep lists"),
        (["modules.dep.bin"], "has no modules of its kernel 6.1: linux-image-6.1"),
    ],
)
def test_modules_that_were_removed_are_named(tmp_path, there, says):
    (tmp_path / "modules.dep").write_text("kernel/ext4.ko:\n")
    files = {f"lib/modules/6.1/{name}": tmp_path / "modules.dep" for name in there}
    with pytest.raises(CommandExecutionError, match=says):
        kernel.modules("web@1", "6.1", files, ["ext4"])


def test_what_a_container_would_have_mounted_is_sent_to_the_machine(tmp_path):
    for name, text in (("pki/minion.pem", "key"), ("drop-in", "[Unit]"), ("apt.conf", "proxy")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    files = {"/run/systemd/x.d/bake.conf": f"{tmp_path}/drop-in", "/etc/apt/apt.conf.d/x": f"{tmp_path}/apt.conf"}
    binds = {"/run/immutable-pki": f"{tmp_path}/pki", "/var/cache/apt/archives": f"{tmp_path}/archives"}
    found = bake._wanted(Machine(**{**vars(DESCRIPTION), "files": files, "binds": binds}))
    assert found["files"] == {"/run/systemd/x.d/bake.conf": "[Unit]", "/run/immutable-pki/minion.pem": "key"}
    assert found["mounts"]["/etc/apt/apt.conf.d/x"] == "proxy"
    assert json.loads(found["mounts"][str(MACHINE_PATH)]) == {"id": "web-bake.example.com"}
    assert found["caches"] == ["/var/cache/apt/archives"]


def test_it_is_set_up_before_its_init(tmp_path, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(setup, "_run", lambda *words: ran.append(" ".join(words)))
    setup.main(WANTED, tmp_path)
    key = tmp_path / "run/pki/minion.pem"
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == (WANTED["files"]["/run/pki/minion.pem"], 0o600)
    assert stat.S_IMODE((tmp_path / "run/systemd/system/a.service").stat().st_mode) == 0o644
    own = tmp_path / setup.OWN
    assert f"mount -o bind {own}/files/0 {tmp_path}/etc/salt/minion.d/zzz.conf" in ran
    assert stat.S_IMODE((own / "files/1").stat().st_mode) == 0o755, "a program"
    assert f"mount -o bind {own}/cache/var-cache-apt-archives {tmp_path}/var/cache/apt/archives" in ran
    assert (tmp_path / "usr/sbin/policy-rc.d").read_text() == "", "an empty file, as a container leaves it"
    unit = tmp_path / "run/systemd/system/sysinit.target.wants/immutable-vm-agent.service"
    assert f"agent.py {qemu.PORT}" in unit.read_text()


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ("10.0.0.2::10.0.0.1:255.255.255.0::eth0:none", ["Name=eth0", "Address=10.0.0.2/24", "Gateway=10.0.0.1"]),
        ("10.0.0.2:::255.255.0.0::eth0:none", ["Name=eth0", "Address=10.0.0.2/16"]),
    ],
)
def test_networkd_leaves_it_the_address_that_it_has(tmp_path, given, lines):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text(f"ro {qemu.ADDRESS}={given} quiet\n")
    setup.main({**WANTED, "mounts": {}, "caches": [], "network": qemu.ADDRESS}, tmp_path)
    text = (tmp_path / "run/systemd/network/10-immutable-vm.network").read_text()
    assert [line for line in text.splitlines() if "=" in line] == lines


def test_the_ram_disk_runs_what_sets_it_up():
    for archive in (ramdisk.of_bake({}, WANTED), ramdisk.of_test({}, WANTED)):
        assert b"scripts/immutable-vm" in archive and b"modprobe -q -d /immutable" in archive
        assert not set(b"@modules@ @key@ @python@".split()) & set(archive.split())
        source = archive[archive.index(b'"""What a virtual machine of a builder does') :].partition(b"\0")[0].decode()
        compile(source, "setup.py", "exec")
    assert ramdisk.of_test({}, WANTED).count(b"mount_disk") == 2


def test_with_a_kernel_of_its_own_only_what_needs_the_hosts_is_done_at_once(tmp_path):
    def state(name):
        return {}

    functions = dict.fromkeys(("kmod.present", "cmd.run", "sysctl.present", "service.running", "lvm.pv_present"), state)
    watched = dict(functions)
    deferred.Deferral(trace.Trace(str(tmp_path / "t"), "", b""), (), own_kernel=True).wrap(watched)
    assert {name for name in functions if watched[name] is state} == {"kmod.present", "cmd.run"}


def test_text_that_is_no_utf_8_arrives_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "ca.crt").write_bytes(b"# Z\xfcrich\n-----BEGIN CERTIFICATE-----\n")
    files = {"/run/immutable/ca.crt": f"{tmp_path}/ca.crt"}
    wanted = json.loads(json.dumps(bake._wanted(Machine(**{**vars(DESCRIPTION), "files": files}))))
    setup.main({**wanted, "mounts": {}, "caches": []}, tmp_path)
    assert (tmp_path / "run/immutable/ca.crt").read_bytes() == (tmp_path / "ca.crt").read_bytes()


def test_a_machine_that_ended_before_it_had_shut_down_makes_no_layer():
    bake.require_shut_down("Syncing filesystems\n[  182.5] reboot: Power down")
    with pytest.raises(CommandExecutionError, match="before it had shut down, .* bake again:\nKernel panic"):
        bake.require_shut_down("Kernel panic - not syncing")


def test_nothing_starts_by_the_clock_in_a_bake(tmp_path):
    wanted = {"bake_id": "web-bake", "minion": {}, "bridge": "im0", "subnet": "10.0.0.0/24"}
    masked = state_run.prepare(Host(tmp_path), tmp_path, wanted, ()).files["/run/systemd/system/timers.target"]
    assert Path(masked).read_bytes() == b""
    without_init = state_run.prepare(Host(tmp_path), tmp_path, {**wanted, "chroot": True}, ())
    assert not any("timers" in path for path in without_init.files)


def test_our_ram_disk_comes_before_that_of_the_kernel_and_is_nobodys_to_read(tmp_path):
    (tmp_path / "of-kernel").write_bytes(b"theirs")
    file = Path(ramdisk.write(tmp_path, b"ours", tmp_path / "of-kernel"))
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"ourstheirs", 0o600)
