"""What a host does before a machine starts and after it ended: ids, records, consoles, folders.

No machine is started.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import Host
from saltext.immutable.machines import commands, images, machine, nspawn, overlay, qemu
from saltext.immutable.machines.description import Machine


@pytest.fixture
def host(tmp_path, monkeypatch) -> Host:
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    found = Host(tmp_path / "immutable")
    found.prepare()
    return found


@pytest.mark.parametrize("minion_id", ["", "..", ".", "../layers", "a/b", "*", "/etc"])
@pytest.mark.parametrize("call", [commands.destroy, commands.console])
def test_an_id_that_is_no_file_name_is_refused(host, call, minion_id):
    (host.layers / "precious").mkdir()
    with pytest.raises(SaltInvocationError, match="minion_id"):
        call(host, minion_id)
    assert (host.layers / "precious").is_dir()


def test_an_order_with_fields_that_the_host_decides_is_refused(host):
    with pytest.raises(SaltInvocationError, match="binds"):
        order = {"minion_id": "a", "image": "d", "minion": {}, "bridge": "b", "subnet": "10.0.0.0/24"}
        commands.launch(host, {**order, "binds": {"/": "/"}})


def test_a_launch_that_comes_too_late_is_refused(host):
    order = {"minion_id": "a", "image": "d", "minion": {}, "bridge": "b", "subnet": "10.0.0.0/24"}
    with pytest.raises(CommandExecutionError, match="came 40 s too late"):
        commands.launch(host, {**order, "before": time.time() - 40})


def test_ctrl_c_after_the_record_was_written_leaves_no_machine(host, monkeypatch):
    def interrupted(_host, order):
        machine._write(_host, order)
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "_record", interrupted)
    monkeypatch.setattr(machine.overlay, "refuse_unstackable", lambda _root: None)
    monkeypatch.setattr(machine.network, "delete_link", lambda _link: None)
    monkeypatch.setattr(machine.network, "down", lambda _network: None)
    with pytest.raises(KeyboardInterrupt):
        machine.launch(host, Machine("web-1", "d", (), {}, "b", "10.0.0.0/24", tag=host.tag))
    assert machine.machines(host) == []
    assert list(host.machines.iterdir()) == []


def test_a_temporary_machine_is_destroyed_when_ctrl_c_comes_as_its_launch_ends(host, monkeypatch):
    ended = []
    monkeypatch.setattr(machine, "destroy", lambda _host, minion_id: ended.append(minion_id))
    monkeypatch.setattr(machine, "launch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    order = Machine("web-1", "d", (), {}, "b", "10.0.0.0/24")
    with pytest.raises(KeyboardInterrupt), machine.temporary(host, order):
        pass
    assert ended == ["web-1"]


def test_an_image_that_is_not_here_is_named(host):
    with pytest.raises(CommandExecutionError, match="image 3f2a9c1d04be is not on this host"):
        images.lower(host, "3f2a9c1d04be" * 5)


def test_a_missing_layer_is_named_before_anything_is_mounted(host):
    with pytest.raises(CommandExecutionError, match="layer 3f2a is gone from this host"):
        images.require_links(host, ["3f2a"])


def test_two_directories_of_one_host_have_different_names_for_a_machine(host, tmp_path):
    other = Host(tmp_path / "other")
    order = Machine("web-1", "d", (), {}, "b", "10.0.0.0/24")
    assert Machine(**{**asdict(order), "tag": host.tag}).name != Machine(**{**asdict(order), "tag": other.tag}).name


def test_the_end_of_a_console_is_returned_as_plain_text(host):
    log = host.consoles / "web-1.log"
    log.write_bytes(b"x" * 100_000 + b"\n[\x1b[0;32m  OK  \x1b[0m] Started \x07nginx\x1b]0;title\x07\r\nbye \xff\r\n")
    assert commands.console(host, "web-1", 2) == "[  OK  ] Started nginx]0;title\nbye \ufffd"
    assert len(commands.console(host, "web-1", 9)) < 70_000


def test_the_next_removal_finishes_one_that_was_killed(host):
    left = host.tmp / "discarded-0123"
    (left / "var").mkdir(parents=True)
    host.discard(host.machines / "web-1")
    assert not left.exists()


def test_a_folder_without_a_record_is_no_machine_and_can_be_destroyed(host):
    (host.machines / "web-1" / "var").mkdir(parents=True)
    assert machine.machines(host) == []
    assert commands.destroy(host, "web-1") is False
    assert list(host.machines.iterdir()) == []


@pytest.fixture
def launched(host, monkeypatch) -> list[Machine]:
    """The machines that would have been started from image ``d``; it has what the test puts into it."""
    found: list[Machine] = []
    monkeypatch.setattr(machine, "launch", lambda host, order: found.append(order) or order)
    monkeypatch.setattr(machine, "alive", lambda host, order: True)
    images.metadata_file(host, "d" * 64).parent.mkdir()
    (host.l / overlay.seal_name("d" * 64)).symlink_to(images.seal_target("d" * 64))
    return found


@pytest.mark.parametrize("read_only", [True, False])
def test_writable_directories_are_those_of_the_image(host, launched, read_only):
    about = {"layers": [], "read_only": read_only, "policy": {"writable": ["/srv/data", "/var/spool"]}}
    images.metadata_file(host, "d" * 64).write_text(json.dumps(about))
    commands.launch(host, {"minion_id": "a", "image": "d" * 64, "minion": {}, "bridge": "b", "subnet": "10.0.0.0/24"})
    assert (launched[0].read_only, launched[0].writable) == (read_only, ("/srv/data", "/var/spool"))


def test_each_writable_directory_has_a_folder_for_its_changes(host):
    order = Machine("a", "d", (), {}, "b", "10.0.0.0/24", writable=("/srv/data", "/var/spool", "/etc/app"))
    container = machine._container(host, _recorded(host, order))
    folder = host.machines / "a"
    mounts = {"/var": folder / "var", "/srv/data": folder / "writable-0", "/etc/app": folder / "writable-1"}
    assert container.overlays == mounts
    assert all(folder.is_dir() for folder in mounts.values())
    words = nspawn._nspawn(container)
    assert [word for word in words if word.startswith("--overlay=")] == [
        f"--overlay=+{path}:{folder}:{path}" for path, folder in mounts.items()
    ]


def test_a_writable_root_needs_no_further_mounts(host):
    order = Machine("a", "d", (), {}, "b", "10.0.0.0/24", read_only=False, writable=("/srv/data",))
    assert machine._container(host, _recorded(host, order)).overlays == {}


@pytest.mark.parametrize("ids", [0, 1 << 30])
@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_what_a_machine_writes_to_belongs_to_whom_the_image_says_in_its_own_ids(host, ids):
    (host.l / "bottom/srv/data").mkdir(parents=True)
    os.chown(host.l / "bottom/srv/data", 33, 34)
    (host.l / "bottom/srv/data").chmod(0o2770)
    order = Machine("a", "d", ("bottom",), {}, "b", "10.0.0.0/24", writable=("/srv/data",), ids=ids)
    container = machine._container(host, _recorded(host, order))
    changes = container.overlays["/srv/data"].stat()
    assert (changes.st_uid, changes.st_gid, changes.st_mode & 0o7777) == (ids + 33, ids + 34, 0o2770)
    assert {source.stat().st_uid for source in container.files.values()} == {ids}
    words = nspawn._nspawn(container)
    assert (f"--private-users={ids}:65536" in words) is bool(ids)
    assert ("--network-namespace-path=/proc/self/ns/net" in words) is not bool(ids)


def _recorded(host: Host, order: Machine) -> Machine:
    recorded = replace(order, tag=host.tag, address="10.0.0.2", link="im0")
    (host.machines / order.minion_id).mkdir()
    (host.machines / order.minion_id / "machine.json").write_text(json.dumps(asdict(recorded)))
    assert machine.find(host, order.minion_id) == recorded, "what was written is read as it was"
    return recorded


def test_what_only_its_host_needs_of_a_machine_is_not_told_to_the_master(host):
    """The answer goes through JSON; a virtual machine that tests an image is in the list as well."""
    vm = qemu.VirtualMachine("/w/vm", "/k", "/i", "rw", ("/d",), 1 << 30, 2)
    told = commands._as_data(host, Machine("web-bake", "a" * 64, (), {}, "im0", "10.0.0.0/24", vm=vm))
    assert not {"vm", "emulated", "upper", "binds"} & told.keys()
    assert json.loads(json.dumps(told)) == told
