"""What commands of states leave to the boot of a machine, and what is said of those that cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from saltext.immutable import systemd
from saltext.immutable.builder.states.handlers import commands, kernel
from tests.support.fake_states import RESULT, FakeStates, answer

COMMAND = "name, **kwargs|return {'name': name, 'result': RESULT, 'changes': CHANGES, 'comment': 'Command run'}"
DENIED = {
    "sysctl": 'sysctl: permission denied on key "vm.swappiness"\nsysctl: cannot stat /proc/sys/net/x: No such file',
    "modprobe": "modprobe: FATAL: Module nbd not found in directory /lib/modules/6.1",
    "mount": "mount: /srv/data: special device /dev/vdb1 does not exist.\n       dmesg(1) may have more information",
    "swapon": "swapon: /swapfile: swapon failed: Invalid argument",
    "apparmor_parser": "Cache read/write disabled: interface file missing. (Kernel needs AppArmor 2.4 patch.)\n"
    "Warning: unable to find a suitable fs in /proc/mounts, is it mounted?\nUse --subdomainfs to override.",
    "aa-complain": "ERROR: Cache read/write disabled: interface file missing.\nUse --subdomainfs to override.",
    "echo": "/bin/sh: 1: cannot create /proc/sys/vm/swappiness: Read-only file system",
}
SYSCTL, MODULES, FSTAB = "systemd-sysctl.service", "systemd-modules-load.service", "systemd-fstab-generator"


@pytest.fixture
def image(tmp_path, monkeypatch):
    """What the image has for its boot: settings, modules, a swap and a mount, profiles."""
    for name, text in (
        ("sysctl.d/a.conf", "vm.swappiness = 10\n-kernel.dmesg_restrict=1\nnet/ipv4/ip_forward=1\n# vm.x = 1\n"),
        ("sysctl.d/b.conf", "net.ipv4.tcp_rmem = 4096   87380 6291456\n"),
        ("modules-load.d/a.conf", "nbd\nbr_netfilter\n"),
        ("fstab", f"/dev/vdb1 /srv/data ext4 defaults 0 0\nnone /proc proc\n{tmp_path}/swap none swap defaults 0 0\n"),
        ("swap", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(kernel, "_SYSCTL_FILES", (f"{tmp_path}/sysctl.d/*.conf",))
    monkeypatch.setattr(kernel, "_MODULES_FILES", (f"{tmp_path}/modules-load.d/*.conf",))
    monkeypatch.setattr(commands, "_FSTAB", tmp_path / "fstab")
    done = lambda words, **how: subprocess.CompletedProcess(words, int("wrong" in words[-1]), "", "")  # noqa: E731
    monkeypatch.setattr(commands.subprocess, "run", done)
    return tmp_path


def call(place: Path, name: str, stderr: str, function: str = "cmd.run", retcode: int = 1, **more: object):
    states = FakeStates(place)
    changes = {"pid": 7, "retcode": retcode, "stdout": "", "stderr": stderr}
    code = COMMAND.replace("CHANGES", repr(changes)).replace("RESULT", repr(not retcode))
    return states, states.call(function, code, name=name, **more)


@pytest.mark.parametrize(
    ("line", "by"),
    [
        ("sysctl --system", [SYSCTL]),
        ("sudo /sbin/sysctl -q -p {}/sysctl.d/a.conf >/dev/null 2>&1", [SYSCTL]),
        ("sysctl --load={}/sysctl.d/a.conf", [SYSCTL]),
        ("sysctl -w vm.swappiness=10 net.ipv4.ip_forward=1", [SYSCTL]),
        ("sysctl -w 'net.ipv4.tcp_rmem=4096 87380 6291456'", [SYSCTL]),
        ("echo 10 > /proc/sys/vm/swappiness", [SYSCTL]),
        ('echo "1" >/proc/sys/net/ipv4/ip_forward', [SYSCTL]),
        ("modprobe nbd", [MODULES]),
        ("modprobe -a nbd br-netfilter", [MODULES]),
        ("modprobe nbd && sysctl --system", [MODULES, SYSCTL]),
        ("swapon -a", [FSTAB]),
        ("swapon {}/swap", [FSTAB]),
        ("mount -a", [FSTAB]),
        ("mount /srv/data", [FSTAB]),
        ("apparmor_parser -r -W /etc/apparmor.d/usr.bin.app", ["apparmor.service"]),
        ("aa-complain /etc/apparmor.d/usr.bin.app", ["apparmor.service"]),
    ],
)
def test_what_the_boot_of_the_image_does_anyway_is_left_to_it(image, line, by):
    line = line.format(image)
    program = next(name for name in DENIED if name in line)
    states, result = call(image, line, DENIED[program])
    assert result["result"] is True and result["changes"]["pid"] == 7, "who requires it or watches it runs"
    assert [unit for _, _, unit in states.noted()] == by
    assert result["comment"].count("deferred to the boot") == len(by)


@pytest.mark.parametrize(
    "line",
    [
        "sysctl -w vm.swappiness=20",
        "sysctl -p /etc/other.conf",
        "sysctl vm.swappiness",
        "modprobe dummy",
        "modprobe -r nbd",
        "swapon /other",
        "mount /srv/other",
        "mount /srv/data /srv/other",
        "mount -o remount,ro /srv/data",
        "echo 20 > /proc/sys/vm/swappiness",
        "modprobe nbd || true; modprobe dummy",
        "sysctl --system | grep x",
        "apparmor_parser -r /srv/profile",
        "apparmor_parser -R /etc/apparmor.d/usr.bin.app",
        "apparmor_parser -r /etc/apparmor.d/wrong",
        "sysctl -w 'vm.swappiness=10",
    ],
)
def test_what_no_boot_does_fails_and_says_the_ways_out(image, line):
    states, result = call(image, line, "x: Permission denied")
    assert (result["result"], states.noted()) == (False, [])
    assert "at_launch of the recipe" in result["comment"] and "bake_in: vm" in result["comment"]


@pytest.mark.parametrize(
    ("line", "stderr", "code"),
    [
        pytest.param("sysctl --system", "sh: 1: sysctl: not found", 127, id="no such program"),
        pytest.param("sysctl --system", "permission denied\nsysctl: malformed setting", 1, id="an error beside it"),
        pytest.param("modprobe nbd", "", 1, id="no reason"),
    ],
)
def test_only_what_a_container_may_not_do_is_left_to_the_boot(image, line, stderr, code):
    states, result = call(image, line, stderr, retcode=code)
    assert (result["result"], states.noted()) == (False, [])


def test_a_swap_file_that_the_tree_forgot_fails(image):
    (image / "swap").unlink()
    assert (
        call(image, "swapon -a", f"swapon: cannot open {image}/swap: No such file or directory")[1]["result"] is False
    )


@pytest.mark.parametrize("setting", ["vm.swappines = 1", "vm.swappiness = much"])
def test_a_file_with_a_setting_that_no_kernel_takes_fails(image, setting):
    (image / "sysctl.d/a.conf").write_text(setting)
    assert call(image, "sysctl --system", DENIED["sysctl"])[1]["result"] is False


@pytest.mark.parametrize(
    ("line", "stderr"),
    [
        ("ip link add dummy0 type dummy", "Error: Unknown device type."),
        ("tc qdisc add dev lo root netem", "Error: Specified qdisc kind is unknown."),
        ("hwclock -w", "hwclock: Cannot access the Hardware Clock via any known method."),
        ("date -s 12:00", "date: cannot set date: Operation not permitted"),
        ("iptables -A INPUT -j DROP", "Could not fetch rule set: Permission denied (you must be root)"),
        ("mkfs.ext4 /dev/vdb", "The file /dev/vdb does not exist and no size was specified."),
        ("/srv/setup", "modprobe: FATAL: Module x not found in directory /lib/modules/6.1"),
    ],
)
def test_a_command_of_the_kernel_says_the_ways_out(image, line, stderr):
    said = call(image, line, stderr)[1]["comment"]
    assert "needs the kernel of the host" in said and "at_launch" in said


@pytest.mark.parametrize("line", ["false", "update --ip x", "my-mount x", "date +%s", "cat /srv/sysctl.txt"])
def test_other_commands_fail_as_they_are(image, line):
    assert call(image, line, "cat: x: Permission denied")[1]["comment"] == "Command run"


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("ip route add 10.0.0.0/8 dev lo", True),
        ("/sbin/ip -4 addr replace 10.0.0.1/8 dev lo", True),
        ("tc qdisc add dev lo root netem", True),
        ("ip route show", False),
        ("echo ip route add >/etc/route", False),
        ("nginx -t", False),
    ],
)
def test_what_a_command_did_to_the_network_of_the_bake_only_is_recorded(image, line, lost):
    states, result = call(image, line, "", retcode=0)
    assert result["result"] is True
    assert bool(states.file.read_text()) is lost and (not lost or "at_launch" in states.noted("lost")[0][1])


def test_a_unit_that_a_command_or_a_function_did_not_start_is_shown(image, monkeypatch):
    monkeypatch.setattr(systemd, "describe", lambda unit: f"status of {unit}")
    error = 'Job for nginx.service failed.\nSee "systemctl status nginx.service"'
    assert "status of nginx.service" in call(image, "systemctl restart nginx", error)[1]["comment"]
    code = "name, **kwargs|raise Error(kwargs['service.restart'])"
    said = FakeStates(image).call("module.run", code, name="restart", **{"service.restart": error})
    assert said["result"] is False and said["comment"].endswith("status of nginx.service")


@pytest.mark.parametrize(
    ("arguments", "error", "hinted"),
    [
        ({"sysctl.assign": [{"name": "vm.x"}]}, "sysctl -w failed: permission denied", True),
        ({"func": "kmod.load"}, "not found in directory /lib/modules/6.1", True),
        ({"service.start": [{"name": "x"}]}, "permission denied", False),
    ],
)
def test_a_function_of_the_kernel_says_the_ways_out(image, arguments, error, hinted):
    code = answer("name, **kwargs|" + RESULT, False, error)
    said = FakeStates(image).call("module.run", code, name="it", **arguments)["comment"]
    assert ("at_launch" in said) is hinted
