"""A tree whose states need the host's kernel bakes; what it leaves to the boot is said, and its machines are well."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.estate import wait_for

WITHOUT_KERNEL = {
    "vm.max_map_count (sysctl.present) of kernel": ("vm.max_map_count = 262144", "systemd-sysctl.service"),
    "net.core.rmem_max (sysctl.present) of kernel": ("net.core.rmem_max = 4194305", "systemd-sysctl.service"),
    "apply it (cmd.run) of kernel, name sysctl --system": (
        "apply the files of /etc/sysctl.d",
        "systemd-sysctl.service",
    ),
    "dummy (kmod.present) of kernel": ("load dummy into the kernel", "systemd-modules-load.service"),
    "/swapfile (mount.swap) of kernel": ("activate the swap /swapfile", "systemd-fstab-generator"),
    "/srv/data (mount.mounted) of kernel": ("mount /dev/vdb1 on /srv/data", "systemd-fstab-generator"),
}


SERVICES = ("apparmor", "chrony", "cron", "qemu-guest-agent")


@pytest.fixture(scope="module")
def kernel(estate):
    """The report of the bake of a tree that needs a kernel."""
    return estate.salt_run("image.bake", "kernel")


@pytest.fixture(scope="module")
def machine(kernel, fleet_of_one):
    """A machine of that image: what runs a shell line in it."""
    with fleet_of_one("kernel") as run:
        yield run


def test_the_bake_says_what_it_leaves_to_the_boot_and_why(estate, kernel):
    found = {each["state"]: (each["what"], each["applied_by"]) for each in kernel.data["deferred"]}
    assert found.items() >= WITHOUT_KERNEL.items(), found
    for name in ("chrony", "apparmor"):
        what, unit = found[f"{name} (service.running) of kernel"]
        assert unit == f"{name}.service" and "is not met" in what
    what, unit = found["qemu-guest-agent (service.running) of kernel"]
    assert unit == "qemu-guest-agent.service" and "it needs dev-virtio" in what
    assert found["cron (service.running) of kernel"][0] == "start cron.service: at_boot of the recipe names it"
    assert "deferred to the boot: vm.max_map_count = 262144" in kernel.stderr and "unclosed" not in kernel.stderr
    assert estate.salt_run("image.show", "kernel:stable").data["report"]["deferred"] == kernel.data["deferred"]
    again = estate.salt_run("image.bake", "kernel").data
    assert (again["cached"], again["deferred"]) == (True, kernel.data["deferred"])


def test_the_bake_warns_of_what_belongs_to_its_own_machine(kernel):
    for what in ("bake_id of the recipe", "host name of the machine that baked it"):
        [warning] = [each for each in kernel.data["warnings"] if each.startswith(f"/etc/issue.net holds the {what}")]
        assert "banner (file.managed) of kernel, name /etc/issue.net wrote it" in warning
        assert "bake_identity: {/etc/issue.net: ok}" in warning


def test_a_plan_warns_of_what_the_machines_get_from_their_host_only(estate, kernel):
    warnings = estate.salt_run("fleet.plan", "kernel").data["warnings"]
    now = Path("/proc/sys/vm/max_map_count").read_text().strip()
    assert f"the host needs vm.max_map_count=262144: {now} now" in warnings
    assert not [each for each in warnings if "somaxconn" in each], "machines have that for themselves"
    assert [each for each in warnings if each.startswith("the host needs net.core.rmem_max=4194305")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("cat /etc/sysctl.d/99-salt.conf", "vm.max_map_count = 262144", id="a setting of the kernel"),
        pytest.param("cat /proc/sys/net/core/somaxconn", "4321", id="a setting of the machine's own network"),
        pytest.param("ls /etc/clock-left-alone", "clock-left-alone", id="what a command must not reach"),
        pytest.param("cat /etc/modules-load.d/salt_managed.conf", "dummy", id="a module"),
        pytest.param("grep swap /etc/fstab", "/swapfile", id="swap"),
        pytest.param("grep vdb1 /etc/fstab", "/srv/data", id="a mount"),
        pytest.param("systemctl is-enabled chrony qemu-guest-agent", "enabled", id="services"),
        pytest.param("cat /etc/chrony/conf.d/pool.conf", "time.example.com", id="what a service watches"),
    ],
)
def test_the_persistent_part_is_in_the_image(machine, line, says):
    assert says in machine(line)


def test_a_service_of_at_boot_runs_on_the_machine(machine):
    assert machine("systemctl is-active cron") == "active"


def test_the_machine_says_how_the_services_are_that_its_states_declare(estate, machine):
    policy = estate.salt_run("image.show", "kernel:stable").data["policy"]
    assert policy["running"] == sorted(f"{name}.service" for name in SERVICES)
    [found] = estate.salt("kernel-*", "immutable.services").data.values()
    assert list(found) == policy["running"] and found["cron.service"] == "active", found
    for name in set(SERVICES) - {"cron"}:
        assert found[f"{name}.service"].startswith("not applicable: "), found


def test_no_unit_failed(machine):
    assert machine("systemctl --failed --no-legend --plain") == "", machine("systemctl status systemd-sysctl")


def test_the_machine_has_no_drift(estate, machine):
    found = estate.salt_run("fleet.drift", "kernel").data
    assert (found["clean"], found["drifted"], found["unknown"]) == (1, [], []), found


def test_a_machine_is_sick_when_a_service_ends_that_the_states_want_running(estate, machine):
    sick = {}

    def sick_now() -> bool:
        sick.update(estate.salt_run("fleet.reconcile", "kernel").data["fleets"]["kernel"].get("sick", {}))
        return bool(sick)

    assert not sick_now(), "what cannot run on this machine is no reason"
    machine("systemctl stop cron")
    wait_for(sick_now, 60)
    [found] = sick.values()
    assert found["why"].endswith("cron.service is inactive, but the states of its image want it running")
    machine("systemctl start cron")


def test_states_that_change_something_each_time_fail_the_bake_if_the_recipe_says_so(estate):
    answer = estate.salt_run("image.bake", "restless", check=False)
    assert answer.returncode == 1
    said = answer.stdout + answer.stderr
    assert "states that would change something each time:" in said
    assert "- the time (cmd.run) of restless" in said and "/etc/quiet" not in said


def test_network_zone_and_language_are_baked_and_the_network_of_the_bake_is_left_alone(estate):
    """A state that needs the network follows them."""
    report = estate.salt_run("image.bake", "place").data
    tree = estate.host.layers / report["layers"][-1]["digest"] / "fs"
    assert [(each["what"], each["applied_by"]) for each in report["deferred"]] == [
        ("set up eth9", "networking.service")
    ]
    written = (tree / "etc/network/interfaces").read_text()
    assert "iface eth9 inet static" in written and "address 10.9.8.7" in written
    assert (tree / "etc/localtime").readlink().as_posix().endswith("Europe/Berlin")
    assert "LANG=de_DE.UTF-8" in (tree / "etc/default/locale").read_text().replace('"', "")
    assert (tree / "usr/bin/hello").exists()
