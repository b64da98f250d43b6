"""Machines of this host: limited, reachable, apart from each other, outliving who launched them, leaving nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import command_of
from salt.exceptions import CommandExecutionError
from support.estate import wait_for

from saltext.immutable.machines import commands, nspawn
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.cgroup import Cgroup, hierarchies
from saltext.immutable.spec.model import Network

MEMORY = 384 << 20


@pytest.fixture(scope="module")
def launch(estate, web) -> Iterator[Any]:
    """Launch a machine from the image of ``web``; it goes away at the end."""
    launched = []

    def start(minion_id: str, **changes: Any) -> dict[str, Any]:
        launched.append(minion_id)
        order = {
            "minion_id": minion_id,
            "image": web["digest"],
            "minion": {"id": minion_id, "master": "127.0.0.1"},
            "bridge": estate.net.bridge,
            "subnet": estate.net.subnet,
        }
        return commands.launch(estate.host, order | changes)

    yield start
    for minion_id in launched:
        commands.destroy(estate.host, minion_id)


@pytest.fixture(scope="module")
def pair(launch, booted) -> list[dict[str, Any]]:
    """Two machines that have booted."""
    found = [launch(f"machine-{name}.example.com", memory=MEMORY, cpus=0.5) for name in ("a", "b")]
    for machine in found:
        booted(machine["minion_id"])
    return found


def cgroup(estate, minion_id: str) -> Cgroup:
    machine = machines.find(estate.host, minion_id)
    assert machine is not None
    return machine.cgroup


def listed(estate) -> dict[str, bool]:
    return {machine["minion_id"]: machine["running"] for machine in commands.list_machines(estate.host)}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("touch /usr/bin/x", "Read-only file system", id="the root is read-only"),
        pytest.param("touch /etc/x", "Read-only file system", id="so is /etc"),
        pytest.param("touch /var/lib/x && echo fine", "fine", id="/var is writable"),
        pytest.param("touch /tmp/x /run/x && echo fine", "fine", id="/tmp and /run too"),
        pytest.param("hostname", "machine-a", id="it has a name of its own"),
        pytest.param("getent hosts machine-a.example.com", "machine-a", id="which it can resolve"),
        pytest.param("ip -4 -o addr show host0 | wc -l", "1", id="it has one address"),
        pytest.param("cat /proc/1/comm", "systemd", id="systemd is its process 1"),
        pytest.param("systemctl is-active nginx", "active", id="what the image enabled runs"),
        pytest.param("mount | grep -c ' / type overlay'", "1", id="it runs on the layers themselves"),
    ],
)
def test_what_a_machine_is(pair, inside, line, says):
    assert says in inside("machine-a.example.com", line)


def test_what_one_writes_to_var_is_not_seen_by_the_other(pair, inside):
    inside("machine-a.example.com", "echo mine > /var/lib/own")
    assert "No such file" in inside("machine-b.example.com", "cat /var/lib/own")


def test_each_has_a_machine_id_of_its_own(pair, inside):
    ids = {inside(machine["minion_id"], "cat /etc/machine-id") for machine in pair}
    assert len(ids) == 2 and all(len(each) == 32 for each in ids)


def test_it_is_reached_at_the_address_it_was_given(pair):
    for machine in pair:
        with urllib.request.urlopen(f"http://{machine['address']}/", timeout=5) as page:
            assert page.read() == b"version 1\n"


def test_its_memory_is_limited(estate, pair):
    tree, folder = next(
        (tree, folder)
        for tree, folder in zip(hierarchies(), cgroup(estate, "machine-a.example.com").folders(), strict=True)
        if "memory" in tree.controllers
    )
    file = "memory.max" if tree.unified else "memory.limit_in_bytes"
    assert int((folder / file).read_text()) == MEMORY


def test_what_is_done_to_a_service_of_one_does_not_touch_the_other(pair, inside):
    before = inside("machine-b.example.com", "systemctl show -p MainPID nginx; pgrep -c nginx")
    assert inside("machine-a.example.com", "systemctl restart nginx && systemctl stop nginx && echo done") == "done"
    assert inside("machine-b.example.com", "systemctl show -p MainPID nginx; pgrep -c nginx") == before
    assert inside("machine-a.example.com", "systemctl start nginx; systemctl is-active nginx") == "active"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("mknod /tmp/disk b {disk}", "Operation not permitted", id="it makes no device node"),
        pytest.param(
            "mkdir -p /tmp/dev; mount -t devtmpfs dev /tmp/dev; head -c 1 /tmp/dev/{name} 2>&1",
            "Operation not permitted", id="nor can it read one that the kernel makes",
        ),
        pytest.param(
            "mkdir -p /tmp/cg; mount -t cgroup -o devices none /tmp/cg; find /tmp/cg -name devices.allow | "
            "while read file; do echo a > $file; done; head -c 1 /tmp/dev/{name} 2>&1",
            "Operation not permitted", id="nor change the rules of its cgroup",
        ),
        pytest.param("echo x > /dev/null && head -c 1 /dev/urandom | wc -c", "1", id="it has what programs need"),
        pytest.param("capsh --decode=$(grep CapBnd /proc/1/status | cut -f2) 2>/dev/null | grep -c mknod || echo none",
                     "none", id="without a capability to make one"),
    ],
)  # fmt: skip
def test_root_in_a_machine_does_not_reach_the_hosts_disks(pair, inside, line, says):
    number = os.stat(Path(__file__).parent).st_dev
    by_number = {line.split()[0]: line.split()[2] for line in map(_of_disk, Path("/sys/dev/block").iterdir())}
    disk = f"{os.major(number)} {os.minor(number)}"
    name = by_number.get(disk.replace(" ", ":"), "vda")
    said = inside("machine-a.example.com", f"({line.format(disk=disk, name=name)}) 2>&1")
    assert says in said, said


def _of_disk(link: Path) -> str:
    return f"{link.name} -> {link.resolve().name}"


def test_machines_do_not_reach_each_other_and_their_host_reaches_both(pair, inside):
    for machine, other in (pair, pair[::-1]):
        tried = f"timeout 2 bash -c 'echo > /dev/tcp/{other['address']}/80' 2>&1 && echo reached"
        routed = f"ip route replace {other['address']} via $(ip route | awk '/default/ {{print $3}}')"
        assert "reached" not in inside(machine["minion_id"], tried)
        assert "reached" not in inside(machine["minion_id"], f"{routed}; {tried}")
        inside(machine["minion_id"], f"ip route delete {other['address']}")
        with urllib.request.urlopen(f"http://{machine['address']}/", timeout=5) as page:
            assert page.status == 200


def test_launching_one_that_runs_changes_nothing(pair, launch):
    again = launch("machine-a.example.com")
    assert (again["born"], again["address"]) == (pair[0]["born"], pair[0]["address"])


LAUNCHER = """
import json, sys, time
from pathlib import Path
from saltext.immutable.host import Host
from saltext.immutable.machines import commands
commands.launch(Host(Path(sys.argv[1])), json.loads(sys.argv[2]))
print("launched", flush=True)
time.sleep(60)
"""


def test_a_machine_outlives_who_launched_it(estate, web, booted):
    order = {
        "minion_id": "machine-orphan",
        "image": web["digest"],
        "minion": {},
        "bridge": estate.net.bridge,
        "subnet": estate.net.subnet,
    }
    command = [sys.executable, "-c", LAUNCHER, str(estate.host.root), json.dumps(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "launched\n"
        process.kill()
    assert listed(estate)["machine-orphan"]
    booted("machine-orphan")
    commands.destroy(estate.host, "machine-orphan")


def test_a_machine_that_powers_itself_off_is_listed_as_stopped(estate, launch, inside, booted):
    launch("machine-off")
    booted("machine-off")
    inside("machine-off", "systemctl poweroff")
    wait_for(lambda: not listed(estate)["machine-off"], 20)
    assert listed(estate)["machine-off"] is False
    assert launch("machine-off")["running"], "launching it again starts it anew"
    assert commands.destroy(estate.host, "machine-off")


def nspawn_of(group: Cgroup) -> list[int]:
    """Return the processes that hold a machine from outside."""
    return [pid for pid in group.pids() if command_of(pid) == "systemd-nspawn"]


def test_a_machine_is_listed_truthfully_after_its_nspawn_was_killed(estate, launch, booted):
    launch("machine-bare")
    booted("machine-bare")
    group = cgroup(estate, "machine-bare")
    for pid in nspawn_of(group):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not nspawn_of(group))
    init = nspawn.find_init(group)
    assert listed(estate)["machine-bare"] is (init is not None)
    commands.destroy(estate.host, "machine-bare")
    assert "machine-bare" not in listed(estate)
    wait_for(lambda: not Path(f"/proc/{init}").exists(), 5)


@pytest.mark.parametrize("when", ["at once", "after its boot", "after it stopped"])
def test_a_destroyed_machine_leaves_nothing(estate, launch, inside, booted, when):
    launch("machine-gone", memory=MEMORY)
    machine = machines.find(estate.host, "machine-gone")
    assert machine is not None and all(folder.exists() for folder in machine.cgroup.folders())
    if when != "at once":
        booted("machine-gone")
    if when == "after it stopped":
        inside("machine-gone", "systemctl poweroff")
        wait_for(lambda: not listed(estate)["machine-gone"], 20)
    assert commands.destroy(estate.host, "machine-gone") is True
    assert commands.destroy(estate.host, "machine-gone") is False
    assert not any(folder.exists() for folder in machine.cgroup.folders())
    assert not Path("/sys/class/net", machine.link).exists()
    assert not (estate.host.machines / "machine-gone").exists()
    assert not list(Path("/run/systemd/nspawn").rglob("*machine-gone*"))
    assert "machine-gone" not in Path("/proc/self/mountinfo").read_text()
    assert when == "at once" or "Reached target" in commands.console(estate.host, "machine-gone", 1000)


def test_a_writable_image_gives_machines_that_can_be_changed_and_forget_it(estate, launch, inside, booted):
    image = estate.salt_run("image.bake", "writable").data["digest"]
    for _ in range(2):
        launch("machine-soft", image=image)
        booted("machine-soft")
        assert inside("machine-soft", "ls /etc/drift 2>/dev/null; touch /etc/drift /var/drift && echo fine") == "fine"
        commands.destroy(estate.host, "machine-soft")


def test_the_console_tells_why_a_boot_failed(estate, launch):
    """Its memory is too small for systemd."""
    try:
        launch("machine-small", memory=2 << 20)
        wait_for(lambda: not listed(estate)["machine-small"], 20)
    except CommandExecutionError as err:
        assert "machine-small did not start" in str(err)
    commands.destroy(estate.host, "machine-small")
    assert "machine-small" not in listed(estate)
    assert commands.console(estate.host, "machine-small") is not None


def test_a_bridge_that_the_pack_made_goes_with_its_last_machine(estate, launch):
    net = Network("imtest0", "10.250.77.0/29")
    there = Path("/sys/class/net", net.bridge)
    rules = lambda: subprocess.run(["iptables-save"], capture_output=True, text=True).stdout.count(net.bridge)  # noqa: E731
    for name in ("one", "two"):
        launch(f"machine-{name}", bridge=net.bridge, subnet=net.subnet)
    assert there.exists() and rules()
    commands.destroy(estate.host, "machine-one")
    assert there.exists()
    commands.destroy(estate.host, "machine-two")
    assert not there.exists() and not rules()
