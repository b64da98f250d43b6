"""What states leave to the boot of a machine, by calls of state functions that are fakes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable import systemd
from saltext.immutable.builder.states import deferred, state_run
from saltext.immutable.builder.states.trace import Trace


class FakeStates:
    """State functions as Salt loads them, on a machine whose kernel refuses all."""

    def __init__(self, tmp_path: Path, at_boot: tuple[str, ...] = ()) -> None:
        self.file = tmp_path / "trace"
        self.trace = Trace(str(self.file), "master", b"key")
        self.deferral = deferred.Deferral(self.trace, at_boot)
        self.called: list[str] = []
        self.config: dict[str, str] = {}
        self.enabled: set[str] = set()
        self.salt = {
            "sysctl.default_config": lambda: str(tmp_path / "99-salt.conf"),
            "sysctl.show": lambda config_file: dict(self.config),
            "mount.set_fstab": self._set_fstab,
            "grains.get": lambda name: "Debian",
            "service.enabled": lambda name: name in self.enabled,
            "service.enable": lambda name: self.enabled.add(name) or True,
        }

    def _set_fstab(self, *entry: object, match_on: str = "auto") -> str:
        self.config |= {"fstab": str(entry), "match_on": match_on}
        return "new"

    def call(self, function: str, code: str, test: bool = False, **arguments: object) -> dict[str, object]:
        """Call a state function whose code is given, through the handler."""
        module = {"__opts__": {"test": test}, "__salt__": self.salt, "self": self, "Error": CommandExecutionError}
        arguments_, _, body = code.partition("|")
        exec(f"def state({arguments_}):\n    self.called.append(name)\n    {body}", module)
        functions = {function: module["state"]}
        self.deferral.wrap(functions)
        wrapped = functions[function]
        self.deferral.wrap(functions)
        assert functions[function] is wrapped, "it is wrapped once"
        self.trace.in_progress.append(f"state the-id ({function}) of web")
        try:
            return functions[function](**arguments)
        finally:
            self.trace.in_progress.pop()

    def noted(self, kind: str = "deferred") -> list[list[str]]:
        """Return what was recorded of a kind."""
        lines = map(json.loads, self.file.read_text().splitlines())
        return [line[1:] for line in lines if line[0] == kind]


RESULT = "return {'name': name, 'result': RESULT, 'changes': {}, 'comment': COMMENT}"
SYSCTL = "name, value, config=None|self.config[name] = value; " + RESULT


def answer(code: str, result: bool, comment: str = "") -> str:
    return code.replace("RESULT", repr(result)).replace("COMMENT", repr(comment))


@pytest.mark.parametrize(
    "error",
    ["sysctl -w failed: permission denied", "sysctl vm.swappiness does not exist", "Command 'sysctl' cannot be found"],
)
def test_a_setting_of_the_kernel_is_written_and_left_to_systemd(tmp_path, monkeypatch, error):
    monkeypatch.setattr(deferred, "_SYSCTL_FILES", (f"{tmp_path}/*.conf",))
    (tmp_path / "99-salt.conf").touch()
    states = FakeStates(tmp_path)
    for changes in ({"vm.swappiness": 4}, {}):
        result = states.call("sysctl.present", answer(SYSCTL, False, error), name="vm.swappiness", value=4)
        assert (result["result"], result["changes"]) == (True, changes)
    assert states.noted() == [["the-id (sysctl.present) of web", "vm.swappiness = 4", "systemd-sysctl.service"]]


def test_a_file_that_no_boot_reads_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(deferred, "_SYSCTL_FILES", (f"{tmp_path}/d/*.conf",))
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
    monkeypatch.setattr(deferred, "_MODULES_FILE", str(tmp_path / "modules-load.d/salt_managed.conf"))
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
    lines = [["deferred", "ssh (nftables.append) of web", "load the rules", "nftables.service"]]
    if not says:
        assert state_run.deferred(FakeMachine(tmp_path), lines)[0]["applied_by"] == "nftables.service"
        return
    with pytest.raises(CommandExecutionError, match=says):
        state_run.deferred(FakeMachine(tmp_path), lines)


def test_saved_rules_of_iptables_need_the_plugin_that_loads_them(tmp_path):
    lines = [["deferred", "ssh (iptables.append) of web", "load the rules", "netfilter-persistent.service"]]
    with pytest.raises(CommandExecutionError, match="that loads them; install the package iptables-persistent"):
        state_run.deferred(FakeMachine(tmp_path), lines)
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d/15-ip4tables").touch()
    assert len(state_run.deferred(FakeMachine(tmp_path), lines)) == 1
