"""What states leave to the boot of a machine, by calls of state functions that are fakes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable import systemd
from saltext.immutable.builder.states import state_run
from saltext.immutable.builder.states.handlers import kernel, mounts
from saltext.immutable.builder.states.handlers.network import FIREWALLS
from tests.support.fake_states import RESULT, SYSCTL, FakeStates, answer


@pytest.mark.parametrize(
    "error",
    ["sysctl -w failed: permission denied", "sysctl vm.swappiness does not exist", "Command 'sysctl' cannot be found"],
)
def test_a_setting_of_the_kernel_is_written_and_left_to_systemd(tmp_path, monkeypatch, error):
    monkeypatch.setattr(kernel, "_SYSCTL_FILES", (f"{tmp_path}/*.conf",))
    (tmp_path / "99-salt.conf").touch()
    states = FakeStates(tmp_path)
    for changes in ({"vm.swappiness": 4}, {}):
        result = states.call("sysctl.present", answer(SYSCTL, False, error), name="vm.swappiness", value=4)
        assert (result["result"], result["changes"]) == (True, changes)
    assert states.noted() == [["the-id (sysctl.present) of web", "vm.swappiness = 4", "systemd-sysctl.service"]]


@pytest.mark.parametrize(("setting", "own"), [("net.core.rmem_max", False), ("net.core.somaxconn", True)])
def test_a_setting_of_the_host_that_a_network_only_reads_is_left_to_systemd(tmp_path, monkeypatch, setting, own):
    """Its kernel says "Invalid argument" then, as it does of a wrong value."""
    monkeypatch.setattr(kernel, "_SYSCTL_FILES", (f"{tmp_path}/*.conf",))
    monkeypatch.setattr(kernel, "_PROC", str(tmp_path / "proc"))
    (tmp_path / "99-salt.conf").touch()
    file = tmp_path / "proc" / setting.replace(".", "/")
    file.parent.mkdir(parents=True)
    file.write_text("4194304\n")
    file.chmod(0o644 if own else 0o444)
    result = FakeStates(tmp_path).call("sysctl.present", answer(SYSCTL, False, "failed:"), name=setting, value=7)
    assert result["result"] is not own


@pytest.mark.parametrize(("value", "fits"), [(True, False), ("much", False), ("-1", True), ("0x10 7", True)])
def test_a_value_that_no_kernel_takes_fails(tmp_path, monkeypatch, value, fits):
    monkeypatch.setattr(kernel, "_SYSCTL_FILES", (f"{tmp_path}/*.conf",))
    (tmp_path / "99-salt.conf").touch()
    code = answer(SYSCTL, False, "permission denied")
    result = FakeStates(tmp_path).call("sysctl.present", code, name="kernel.panic", value=value)
    assert result["result"] is fits and (fits or "takes numbers only" in result["comment"])
    assert FakeStates(tmp_path).call("sysctl.present", code, name="kernel.core_pattern", value="|/bin/x")["result"]


def test_a_file_that_no_boot_reads_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "_SYSCTL_FILES", (f"{tmp_path}/d/*.conf",))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/99-sysctl.conf").symlink_to("../linked.conf")
    (tmp_path / "linked.conf").touch()
    states, code = FakeStates(tmp_path), answer(SYSCTL, False, "permission denied")
    linked = states.call("sysctl.present", code, name="vm.swappiness", value=4, config=str(tmp_path / "linked.conf"))
    other = states.call("sysctl.present", code, name="vm.swappiness", value=4, config=str(tmp_path / "other"))
    assert (linked["result"], other["result"]) == (True, False)
    assert "no boot reads" in other["comment"]


@pytest.mark.parametrize("name", ["vm.overcommit_memroy", "kernel.panik"])
def test_a_setting_that_this_kernel_does_not_have_fails(tmp_path, name):
    states = FakeStates(tmp_path)
    result = states.call("sysctl.present", answer(SYSCTL, False, f"sysctl {name} does not exist"), name=name, value=4)
    assert (result["result"], states.noted()) == (False, [])
    assert "no such setting" in result["comment"] and "at_launch" in result["comment"]


@pytest.mark.parametrize(
    ("code", "comment"),
    [
        pytest.param(answer(SYSCTL, False, "sysctl -w failed: Invalid argument"), "Invalid", id="a wrong value"),
        pytest.param(answer("name, value, config=None|" + RESULT, False, "Permission denied"), "denied", id="no file"),
        pytest.param(answer(SYSCTL, True, "set"), "set", id="the machine's own, which it can set"),
    ],
)
def test_other_results_of_sysctl_stay_as_they_are(tmp_path, code, comment):
    states = FakeStates(tmp_path)
    assert comment in states.call("sysctl.present", code, name="vm.swappiness", value=4)["comment"]
    assert states.noted() == []


def test_modules_of_the_kernel_are_loaded_at_boot(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "_MODULES_FILE", str(tmp_path / "modules-load.d/salt_managed.conf"))
    states, code = FakeStates(tmp_path), answer("name, persist=False, mods=None|" + RESULT, False)
    assert states.call("kmod.present", code, name="dummy", persist=True)["changes"] == {"dummy": "loaded at boot"}
    assert states.call("kmod.present", code, name="dummy", persist=True)["changes"] == {}
    states.call("kmod.present", code, name="both", mods=["bonding mode=4", "dummy"], persist=True)
    file = tmp_path / "modules-load.d/salt_managed.conf"
    assert file.read_text().splitlines() == ["bonding mode=4", "dummy"]
    assert states.call("kmod.absent", code, name="bonding", persist=True)["result"] is True
    assert file.read_text().splitlines() == ["dummy"]
    assert states.called == [], "Salt's own function would ask the kernel"
    states.call("kmod.present", code, name="nbd", mods="nbd is the name", persist=True)
    assert file.read_text().splitlines() == ["dummy", "nbd"], "as Salt does, where mods is no list"
    refused = states.call("kmod.present", code, name="nbd")
    assert refused["result"] is False and "give persist: True" in refused["comment"]


def test_swap_gets_its_line_in_fstab(tmp_path):
    states, code = FakeStates(tmp_path), "name, persist=True, config='/etc/fstab'|raise Error('EPERM')"
    result = states.call("mount.swap", code, name="/swapfile")
    assert (result["result"], result["changes"]) == (True, {"persist": "new"})
    assert "'none', '/swapfile', 'swap'" in states.config["fstab"]
    refused = states.call("mount.swap", code, name="/swapfile", persist=False)
    assert refused["result"] is False and "give persist: True" in refused["comment"]


MOUNTED = (
    "name, device, fstype, mkmnt=False, opts='defaults', dump=0, pass_num=0, config='/etc/fstab', persist=True, "
    "mount=True, **kwargs|" + answer(RESULT, False, "mount: /dev/sdb1: special device does not exist")
)


def test_a_device_is_mounted_at_boot(tmp_path):
    states, place = FakeStates(tmp_path), tmp_path / "data"
    wanted = {"name": str(place), "device": "/dev/sdb1", "fstype": "ext4"}
    assert "give mkmnt: True" in states.call("mount.mounted", MOUNTED, **wanted)["comment"]
    assert states.call("mount.mounted", MOUNTED, **wanted, mkmnt=True)["changes"] == {"persist": "new"}
    assert place.is_dir() and f"'{place}', '/dev/sdb1', 'ext4', 'defaults'" in states.config["fstab"]
    assert states.call("mount.mounted", MOUNTED, **wanted, persist=False)["result"] is False
    states.call("mount.mounted", MOUNTED, **{**wanted, "name": f"{place}/"}, match_on="name")
    assert f"'{place}', '/dev/sdb1'" in states.config["fstab"] and states.config["match_on"] == "name"


@pytest.mark.parametrize(
    ("device", "error", "left"),
    [
        pytest.param("UUID=1-2", "no such device", True, id="a device"),
        pytest.param("nas:/data", "mount.nfs: Operation not permitted", True, id="not allowed in a container"),
        pytest.param("nas:/data", "mount.nfs: Connection refused", False, id="a server that is down"),
        pytest.param("tmpfs", "unknown option", False, id="a wrong option"),
    ],
)
def test_only_what_a_container_cannot_mount_is_left_to_the_boot(tmp_path, device, error, left):
    code = MOUNTED.replace("mount: /dev/sdb1: special device does not exist", error)
    (tmp_path / "data").mkdir()
    states = FakeStates(tmp_path)
    result = states.call("mount.mounted", code, name=str(tmp_path / "data"), device=device, fstype="x")
    assert (result["result"], len(states.noted())) == (left, int(left))


@pytest.mark.parametrize(
    ("kind", "error", "left"),
    [
        pytest.param("nfs", "mount.nfs: No such device", True, id="no driver in this kernel"),
        pytest.param("cifs", "unknown filesystem type cifs", True, id="neither a program nor a driver"),
        pytest.param("fuse.sshfs", "unknown filesystem type fuse", True, id="a file system of a program"),
        pytest.param("ext44", "unknown filesystem type ext44", False, id="a file system that no kernel has"),
        pytest.param("tmpfs", "mount: No such device", False, id="one that this kernel has"),
    ],
)
def test_a_file_system_that_this_kernel_does_not_have_is_mounted_at_boot(tmp_path, monkeypatch, kind, error, left):
    (tmp_path / "filesystems").write_text("nodev\ttmpfs\n\text4\n")
    monkeypatch.setattr(mounts, "_FILESYSTEMS", tmp_path / "filesystems")
    code = MOUNTED.replace("mount: /dev/sdb1: special device does not exist", error)
    result = FakeStates(tmp_path).call("mount.mounted", code, name=str(tmp_path), device="nas:/x", fstype=kind)
    assert result["result"] is left and (left or "mount: False writes the line of fstab only" in result["comment"])


FSTAB = (
    "name, fs_file, fs_vfstype, mount=True, **kwargs|return {'name': name, 'result': RESULT, 'changes': CHANGES, "
    "'comment': ['new', 'Error while mounting: special device /dev/vdb does not exist']}"
)


@pytest.mark.parametrize(
    ("changes", "device", "result"),
    [
        pytest.param({"persist": "new"}, "/dev/vdb", True, id="the line is there"),
        pytest.param({"persist": "new"}, "nas:/x", False, id="no device"),
        pytest.param({}, "/dev/vdb", False, id="no line"),
    ],
)
def test_a_device_of_fstab_is_mounted_at_boot(tmp_path, changes, device, result):
    states, code = FakeStates(tmp_path), FSTAB.replace("CHANGES", repr(changes)).replace("RESULT", "False")
    found = states.call("mount.fstab_present", code, name=device, fs_file=f"{tmp_path}/", fs_vfstype="ext4")
    assert (found["result"], found["changes"], len(states.noted())) == (result, changes, int(result))
    assert result or not changes or found["comment"].startswith("new\nError while mounting"), "Salt's own is a list"


@pytest.mark.parametrize("persist", [True, False])
def test_a_mount_of_the_bake_only_is_recorded(tmp_path, persist):
    code = "name, device, fstype, persist=True, mount=True|" + answer(RESULT, True)
    states = FakeStates(tmp_path)
    states.call("mount.mounted", code, name="/mnt", device="tmpfs", fstype="tmpfs", persist=persist)
    lost = [line for line in states.file.read_text().splitlines() if "give persist: True" in line]
    assert len(lost) == int(not persist)


class Mounts:
    """A machine in which /mnt is mounted."""

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, int(words[-1] != "/mnt"), "", "")


def test_what_was_done_to_the_machine_that_bakes_only_is_warned_of_unless_it_was_undone():
    lines = [
        ["lost", "a", "is lost", "/mnt"],
        ["lost", "b", "was undone", "/srv"],
        ["lost", "c", "is lost", ""],
        ["sls"],
    ]
    assert state_run.lost(Mounts(), lines) == ["a: is lost", "c: is lost"]


def test_what_is_not_mounted_here_is_not_mounted_again(tmp_path):
    states = FakeStates(tmp_path)
    result = states.call("mount.mod_watch", answer("name|" + RESULT, False), name=str(tmp_path))
    assert (result["result"], states.called) == (True, [])


def test_an_fstab_that_cannot_be_written_fails_the_state(tmp_path):
    states = FakeStates(tmp_path)

    def fail(*entry: object, **how: object) -> str:
        raise CommandExecutionError("Unable to read fstab")

    states.salt["mount.set_fstab"] = fail
    result = states.call("mount.swap", answer("name, persist=True, config=None|" + RESULT, False), name="/swapfile")
    assert (result["result"], result["comment"]) == (False, "Unable to read fstab")


@pytest.mark.parametrize(
    ("function", "instead"), [("schedule.present", "a timer of systemd"), ("beacon.present", "/etc/salt/minion.d")]
)
def test_what_speaks_with_a_running_minion_says_what_to_write_in_place(tmp_path, function, instead):
    states = FakeStates(tmp_path)
    result = states.call(function, "name|return {}", name="x")
    assert (result["result"], states.called) == (False, [])
    assert "none runs in a bake" in result["comment"] and instead in result["comment"]


@pytest.mark.parametrize("function", ["schedule.absent", "beacon.absent", "beacon.disabled"])
def test_a_minion_that_does_not_run_has_neither_jobs_nor_beacons(tmp_path, function):
    states = FakeStates(tmp_path)
    assert states.call(function, "name|return {}", name="x")["result"] is True
    assert states.called == []


@pytest.mark.parametrize("function", ["lvm.lv_present", "mdadm.present", "blockdev.formatted", "quota.mode"])
def test_storage_of_one_machine_is_refused_before_anything_is_touched(tmp_path, function):
    states = FakeStates(tmp_path)
    result = states.call(function, answer("name|" + RESULT, True), name="x")
    assert result["result"] is False and states.called == []
    assert "storage of one machine" in result["comment"] and "at_launch" in result["comment"]
    gone = states.call(f"{function.partition('.')[0]}.absent", answer("name|" + RESULT, True), name="x")
    assert gone["result"] is True and states.called == ["x"], "that it is absent is as true in an image"


@pytest.mark.parametrize(("module", "unit"), [("iptables", "netfilter-persistent"), ("nftables", "nftables")])
def test_only_saved_rules_of_a_firewall_are_in_the_image(tmp_path, module, unit):
    states, code = FakeStates(tmp_path), answer("name, save=False|" + RESULT, True, "done")
    refused = states.call(f"{module}.append", code, name="x")
    assert refused["result"] is False and "give save: True" in refused["comment"] and states.called == []
    assert states.call(f"{module}.append", code, name="x", save=True)["result"] is True
    assert [line[2] for line in states.noted()] == [f"{unit}.service"]
    states.call(f"{module}.insert", code, name="x", save="/etc/rules")
    assert states.noted()[-1][1:] == ["load the rules of /etc/rules", "a unit of the tree"]
    assert states.call(f"{module}.insert", code.replace("save=", "rules=None, save="), name="x", rules=[{"save": True}])
    assert states.call(f"{module}.chain_present", code, name="x")["comment"] == "done", "it is saved with the rules"


@pytest.mark.parametrize("function", ["sysfs.present", "ipset.present", "ipset.set_present", "ipset.flush"])
def test_what_salt_saves_nowhere_is_refused_before_anything_is_touched(tmp_path, function):
    states = FakeStates(tmp_path)
    said = states.call(function, answer("name, value=1|" + RESULT, True), name="kernel/mm/x")
    assert (said["result"], states.called) == (False, []) and "at_launch" in said["comment"]
    assert states.call("ipset.absent", answer("name|" + RESULT, True), name="x")["result"] is True


@pytest.mark.parametrize(
    ("function", "config", "enabled", "left"),
    [
        pytest.param("selinux.mode", "SELINUX=permissive", False, True, id="the mode is in the file"),
        pytest.param("selinux.mode", "# SELINUX=permissive", False, False, id="it is not"),
        pytest.param("selinux.boolean", "SELINUX=permissive", False, False, id="no kernel to tell it"),
        pytest.param("selinux.mode", "SELINUX=permissive", True, False, id="a kernel that has SELinux"),
    ],
)
def test_the_mode_of_selinux_is_in_a_file_and_the_rest_needs_its_kernel(
    tmp_path, monkeypatch, function, config, enabled, left
):
    (tmp_path / "config").write_text(config)
    monkeypatch.setattr(kernel, "_SELINUX_CONFIG", tmp_path / "config")
    monkeypatch.setattr(kernel, "_SELINUX", tmp_path / ("config" if enabled else "enforce"))
    states = FakeStates(tmp_path)
    result = states.call(function, answer("name|" + RESULT, False, "Failed"), name="Permissive")
    assert (result["result"], len(states.noted())) == (left, int(left))
    assert ("at_launch" in result["comment"]) is not (left or enabled)


@pytest.mark.parametrize(
    ("name", "output", "hinted"),
    [
        pytest.param("echo never > /sys/kernel/mm/x", "Read-only file system", True, id="a write to /sys"),
        pytest.param("modprobe nbd", "FATAL: Module nbd not found in directory /lib/modules/6.1", True, id="modprobe"),
        pytest.param("sysctl -w vm.swappiness=1", "permission denied\nPermission denied", True, id="sysctl"),
        pytest.param("cat /sys/x", "nothing", False, id="another error"),
        pytest.param("false", "Permission denied", False, id="another command"),
    ],
)
def test_a_command_that_needs_the_kernel_says_so(tmp_path, name, output, hinted):
    result = FakeStates(tmp_path).call("cmd.run", answer("name|" + RESULT, False, output), name=name)
    assert result["result"] is False and ("needs the kernel of the host" in result["comment"]) is hinted


HINT = "If it cannot run in a container, at_boot: [nginx] in the recipe enables it without a start."
RUNNING = answer("name, enable=None|" + RESULT, False, "failed to start")


@pytest.fixture
def place(monkeypatch):
    """systemd as it answers about one unit; each test changes the answers."""

    class FakeSystemd:
        device: str | None = None
        condition: str | None = None
        absent = False

    monkeypatch.setattr(systemd, "is_absent", lambda unit: FakeSystemd.absent)
    monkeypatch.setattr(systemd, "missing_device", lambda unit: FakeSystemd.device)
    monkeypatch.setattr(systemd, "unmet_condition", lambda unit: FakeSystemd.condition)
    monkeypatch.setattr(systemd, "describe", lambda unit: f"status of {unit}")
    return FakeSystemd


def test_a_unit_whose_condition_is_not_met_is_enabled_and_starts_at_boot(tmp_path, place):
    place.condition = "ConditionCapability=CAP_SYS_TIME"
    states = FakeStates(tmp_path)
    result = states.call("service.running", RUNNING, name="chrony", enable=True)
    assert (result["result"], result["changes"], states.enabled) == (True, {"chrony": "enabled"}, {"chrony"})
    what = "start chrony.service: ConditionCapability=CAP_SYS_TIME is not met"
    assert states.noted() == [["the-id (service.running) of web", what, "chrony.service"]]
    assert states.call("service.mod_watch", RUNNING, name="chrony")["changes"] == {}
    refused = states.call("service.running", RUNNING, name="ntpsec")
    assert refused["result"] is False and "nothing starts it at boot; give enable: True" in refused["comment"]


def test_a_file_that_the_tree_forgot_is_no_reason_to_wait_for_the_boot(tmp_path, place):
    place.condition = "ConditionPathExists=/etc/app/app.conf"
    result = FakeStates(tmp_path).call("service.running", RUNNING, name="app", enable=True)
    assert result["result"] is False and "ConditionPathExists=/etc/app/app.conf is not met" in result["comment"]


def test_a_unit_that_needs_a_device_is_not_started_at_all(tmp_path, place):
    place.device = "it needs dev-virtio.device"
    states = FakeStates(tmp_path)
    assert states.call("service.running", RUNNING, name="qemu-guest-agent", enable=True)["result"] is True
    assert states.called == []


def test_a_unit_of_at_boot_is_not_started_at_all(tmp_path, place):
    states = FakeStates(tmp_path, at_boot=("auditd.service",))
    assert states.call("service.running", RUNNING, name="auditd", enable=True)["result"] is True
    assert states.called == [] and states.enabled == {"auditd"}


def test_a_unit_that_fails_shows_its_status(tmp_path, place):
    result = FakeStates(tmp_path).call("service.running", RUNNING, name="nginx", enable=True)
    assert (result["result"], result["comment"]) == (False, "failed to start\nstatus of nginx.service\n" + HINT)


def test_a_unit_that_systemd_does_not_know_fails_with_salts_own_words(tmp_path, place):
    place.absent = True
    result = FakeStates(tmp_path).call("service.running", RUNNING, name="nope", enable=True)
    assert (result["result"], result["comment"]) == (False, "failed to start"), "at_boot would not help"


def test_what_the_states_declare_of_services_is_recorded(tmp_path, place):
    states = FakeStates(tmp_path)
    started, failed = answer("name|" + RESULT, True, "done"), answer("name|" + RESULT, False, "no")
    states.call("service.running", started, name="nginx")
    states.call("service.running", started, name="app.socket")
    states.call("service.dead", started, name="exim4")
    states.call("service.running", failed, name="broken")
    states.call("service.mod_watch", started, name="watched")
    assert states.noted("service") == [["nginx.service", True], ["app.socket", True], ["exim4.service", False]]
    for function, more in (("service.disabled", {}), ("service.masked", {}), ("service.running", {"enable": False})):
        states.call(function, answer("name, enable=None|" + RESULT, True, "done"), name="late", **more)
    states.call("service.running", started, name="late")
    states.call("service.running", started, name="getty@*")
    assert states.noted("service")[3:] == [["late.service", False], ["late.service", False], ["late.service", False],
                                           ["late.service", True]]  # fmt: skip


def test_a_service_that_starts_at_boot_is_declared_running(tmp_path, place):
    place.condition = "ConditionCapability=CAP_SYS_TIME"
    states = FakeStates(tmp_path)
    states.call("service.running", RUNNING, name="chrony", enable=True)
    assert states.noted("service") == [["chrony.service", True]]


def test_a_dry_run_is_salts_own(tmp_path, place):
    states = FakeStates(tmp_path, at_boot=("auditd.service",))
    assert states.call("service.running", RUNNING, test=True, name="auditd")["comment"] == "failed to start"
    assert states.noted() == []


def test_other_functions_are_not_touched(tmp_path):
    functions = {"file.managed": object(), "service.enabled": object(), "pkg.installed": object()}
    before = dict(functions)
    FakeStates(tmp_path).deferral.wrap(functions)
    assert functions == before


@pytest.mark.parametrize(
    ("name", "full"),
    [("auditd", "auditd.service"), ("a.socket", "a.socket"), ("my.app", "my.app.service"), ("x@1", "x@1.service")],
)
def test_the_full_name_of_a_unit(name, full):
    assert systemd.full_name(name) == full


def test_an_interface_gets_its_file_and_is_set_up_at_boot(tmp_path):
    states = FakeStates(tmp_path)
    code = "name, enabled=True, **kwargs|return {'name': name, 'result': True, 'changes': kwargs, 'comment': ''}"
    result = states.call("network.managed", code, name="eth0", type="eth", proto="dhcp")
    assert result["changes"] == {"type": "eth", "proto": "dhcp", "noifupdown": True}
    assert states.noted()[0][1:] == ["set up eth0", "networking.service"]


@pytest.mark.parametrize(
    ("function", "what"),
    [("network.routes", "apply the routes of eth0"), ("network.system", "apply the settings of the network")],
)
def test_the_network_is_not_restarted_in_a_bake(tmp_path, function, what):
    states = FakeStates(tmp_path)
    code = "name, **kwargs|return {'name': name, 'result': True, 'changes': dict(kwargs), 'comment': ''}"
    assert states.call(function, code, name="eth0")["changes"] == {"require_reboot": True}
    assert states.noted()[0][1:] == [what, "networking.service"]


@pytest.mark.parametrize("function", ["network.managed", "network.system"])
def test_what_salt_cannot_write_of_the_network_fails(tmp_path, function):
    states = FakeStates(tmp_path)
    code = "name, **kwargs|return {'name': name, 'result': False, 'changes': {}, 'comment': 'no'}"
    assert states.call(function, code, name="eth0")["result"] is False
    assert states.noted() == []


def test_without_firewalld_its_states_say_the_ways_out(tmp_path):
    states = FakeStates(tmp_path)
    code = "name|raise Error('firewall-cmd failed: FirewallD is not running')"
    result = states.call("firewalld.present", code, name="public")
    assert result["result"] is False
    assert "bake_in: vm" in result["comment"] and "/etc/firewalld/zones" in result["comment"]


class FakeMachine:
    """Runs commands on a folder in place of a machine's root; all its units are enabled."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        words = [word.replace("/etc/nftables", f"{self.root}/nftables") for word in command if "include" not in word]
        words[2:2] = [word for word in command if "include" in word]
        words = ["true"] if command[0] == "systemctl" else words
        words = [word.replace("/usr/share/netfilter-persistent", str(self.root)) for word in words]
        return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("is_folder", "config", "says"),
    [
        (True, 'flush ruleset\ninclude "/etc/nftables/*.nft"', ""),
        (True, 'include "/etc/nftables"', 'files of /etc/nftables.*include "/etc/nftables/\\*.nft"'),
        (True, '# include "/etc/nftables/*.nft"', "no machine would load them"),
        (False, '  include "/etc/nftables"', ""),
        (False, 'include "/etc/nftables/*.nft"', 'the file /etc/nftables.*write `include "/etc/nftables"` there'),
        (False, "", "no machine would load them"),
    ],
)
def test_saved_rules_are_included_from_where_salt_saves_them(tmp_path, is_folder, config, says):
    """Salt writes a file of the folder, or in place of the folder where there is none."""
    (tmp_path / "nftables").mkdir() if is_folder else (tmp_path / "nftables").touch()
    (tmp_path / "nftables.conf").write_text(config)
    lines = [["deferred", "ssh (nftables.append) of web", FIREWALLS["nftables"][1], "nftables.service"]]
    if not says:
        assert state_run.deferred(FakeMachine(tmp_path), lines)[0]["applied_by"] == "nftables.service"
        return
    with pytest.raises(CommandExecutionError, match=says):
        state_run.deferred(FakeMachine(tmp_path), lines)


def test_saved_rules_of_iptables_need_the_plugin_that_loads_them(tmp_path):
    lines = [["deferred", "ssh (iptables.append) of web", FIREWALLS["iptables"][1], "netfilter-persistent.service"]]
    with pytest.raises(CommandExecutionError, match="that loads them; install the package iptables-persistent"):
        state_run.deferred(FakeMachine(tmp_path), lines)
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d/15-ip4tables").touch()
    assert len(state_run.deferred(FakeMachine(tmp_path), lines)) == 1


@pytest.mark.parametrize(("unit", "_"), FIREWALLS.values())
def test_a_firewall_that_is_started_at_boot_has_its_rules_from_anywhere(tmp_path, unit, _):
    """A file of the tree has them: only rules that Salt saved are to be included from where it saves them."""
    lines = [["deferred", "wall (service.running) of web", f"start {unit}: a condition is not met", unit]]
    assert len(state_run.deferred(FakeMachine(tmp_path), lines)) == 1
