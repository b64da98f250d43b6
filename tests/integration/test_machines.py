"""Machines of this host: limited, reachable, apart from each other, outliving who launched them, leaving nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from processes import command_of
from salt.exceptions import CommandExecutionError
from support.estate import wait_for

from saltext.immutable.machines import commands, host_boot, network, nspawn
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
        pytest.param("systemctl show nginx -P MemoryMax -P TasksMax | xargs", f"{128 << 20} 60", id="nginx has limits"),
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
            "mkdir -p /tmp/dev; mount -t devtmpfs dev /tmp/dev; head -c 1 /tmp/dev/{name} || echo not read",
            "not read", id="nor can it read one that the kernel makes",
        ),
        pytest.param(
            "mkdir -p /tmp/cg; mount -t cgroup -o devices none /tmp/cg; find /tmp/cg -name devices.allow | "
            "while read file; do echo a > $file; done; head -c 1 /tmp/dev/{name} || echo not read",
            "not read", id="nor change the rules of its cgroup",
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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("date --set=@$(date +%s)", "Operation not permitted", id="its clock"),
        pytest.param(
            "python3 -c 'import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); libc.swapoff(b\"/none\"); "
            "print(os.strerror(ctypes.get_errno()))'",
            "Operation not permitted", id="its swap",
        ),
    ],
)  # fmt: skip
def test_a_command_that_enters_a_machine_does_not_change_the_kernel_of_the_host(pair, inside, line, says):
    """Root of this host enters it, and would have all of its rights there."""
    said = inside("machine-a.example.com", f"({line}) 2>&1")
    assert says in said, said


@pytest.mark.parametrize("place", ["/tmp", "/run", "/dev/shm", "/var/lib", "/var/tmp", "/var/lib/tool"])
def test_programs_run_only_from_the_image_and_from_where_it_says(pair, inside, place):
    """Rights and devices have no effect anywhere."""
    copied = f"cp /bin/echo {place}/program && chmod 4755 {place}/program; {place}/program it runs; rm {place}/program"
    said = inside("machine-a.example.com", f"({copied}) 2>&1; findmnt -no OPTIONS --target {place}")
    assert ("it runs" in said, "Permission denied" in said) == ((True, False) if "tool" in place else (False, True))
    assert {"nosuid", "nodev"} <= set(said.splitlines()[-1].split(","))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("echo '|/tmp/x' > /proc/sys/kernel/core_pattern", id="what the host runs when a program crashes"),
        pytest.param(
            "mount -o remount,rw /proc/sys; echo '|/tmp/x' > /proc/sys/kernel/core_pattern", id="mounted again"
        ),
        pytest.param(
            "mkdir -p /tmp/p; mount -t proc proc /tmp/p; echo '|/tmp/x' > /tmp/p/sys/kernel/core_pattern",
            id="by a procfs of its own",
        ),
        pytest.param("echo h > /proc/sysrq-trigger", id="the keys of the kernel"),
        pytest.param("mount -o remount,rw /sys; echo 1 > /sys/kernel/mm/ksm/run", id="settings in /sys"),
        pytest.param("mount -o remount,rw /sys; echo x > /sys/kernel/uevent_helper", id="a helper of the kernel"),
        pytest.param("cat /proc/kcore | head -c 1 | grep -q .", id="memory of the kernel"),
        pytest.param("dmesg --clear", id="the log of the kernel"),
        pytest.param("ip addr add 10.250.99.9/24 dev host0", id="its address"),
        pytest.param("ip link set host0 address 02:00:00:00:00:01", id="its hardware address"),
        pytest.param(
            "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)'", id="raw packets"
        ),
        pytest.param("touch /var/tmp/x && chattr +i /var/tmp/x", id="files of its disk that cannot be changed"),
        pytest.param("umount /etc/hosts", id="what its host mounted"),
        pytest.param("date -s 2001-01-01", id="the clock"),
    ],
)
def test_root_in_a_machine_changes_nothing_of_its_host(estate, pair, inside, line):
    assert commands.list_machines(estate.host)[0]["shares_ids"] == "", "this kernel has what it takes"
    assert inside("machine-a.example.com", f"{{ {line}; }} >/dev/null 2>&1 && echo changed") == ""


def test_root_in_a_machine_is_nobody_on_its_host_and_in_the_other(estate, pair, inside):
    owners = []
    for machine in pair:
        init = nspawn.find_init(cgroup(estate, machine["minion_id"]))
        owners.append(Path(f"/proc/{init}").stat().st_uid)
        assert inside(machine["minion_id"], "id -u; stat -c %u:%g / /usr/bin/env /etc/hosts /var /var/lib").split() == [
            "0", *["0:0"] * 5
        ]  # fmt: skip
        assert machine["ids"] == owners[-1]
    assert len(set(owners)) == 2 and min(owners) >= 1 << 30


def test_where_the_kernel_cannot_shift_owners_a_machine_runs_all_the_same_and_says_so(
    estate, launch, inside, booted, monkeypatch
):
    monkeypatch.setattr(machines.user_namespace, "impossible", lambda layers: "this kernel is old")
    machine = launch("machine-shared")
    booted("machine-shared")
    assert (machine["ids"], machine["shares_ids"]) == (0, "this kernel is old")
    assert inside("machine-shared", "systemctl is-active nginx; cat /proc/1/uid_map | awk '{print $2}'") == "active\n0"
    commands.destroy(estate.host, "machine-shared")


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


def test_a_machine_reaches_those_ports_of_its_host_that_are_open(estate, pair, launch, inside, booted):
    gateway = network.gateway(Network(estate.net.bridge, estate.net.subnet))
    with socket.create_server((gateway, 0)) as open_one, socket.create_server((gateway, 0)) as closed_one:
        ports = {name: server.getsockname()[1] for name, server in (("open", open_one), ("closed", closed_one))}
        launch("machine-open", ports=[ports["open"]])
        booted("machine-open")
        reached = {
            (minion_id, name): inside(minion_id, f"timeout 2 bash -c 'echo > /dev/tcp/{gateway}/{port}' && echo yes")
            for minion_id in ("machine-open", "machine-a.example.com")
            for name, port in ports.items()
        }
        assert [pair for pair, said in reached.items() if said == "yes"] == [("machine-open", "open")], reached
    rules = lambda: subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout  # noqa: E731
    link = machines.find(estate.host, "machine-open").link
    assert link in rules()
    commands.destroy(estate.host, "machine-open")
    assert link not in rules()


def test_no_machine_reaches_its_host_by_another_protocol_or_address(estate, launch, inside, booted):
    """The bridge of this estate is as one of the operator's own: others than machines may use it in any way."""
    machine = launch("machine-six", capabilities=["CAP_NET_ADMIN"])
    booted("machine-six")
    link = machines.find(estate.host, "machine-six").link
    gateway = network.gateway(Network(estate.net.bridge, estate.net.subnet))
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]

        def reached() -> list[str]:
            """Return by which protocols the machine connects to a port of this host that nobody opened for it."""
            six = f"exec 3<>/dev/tcp/fd69::1/{port} && echo six"
            other = f"ip addr replace 192.0.2.9/32 dev host0; ip route replace {gateway} dev host0 src 192.0.2.9"
            four = f"exec 3<>/dev/tcp/{gateway}/{port} && echo four"
            own = "ip -6 addr replace fd69::2/64 dev host0 nodad"
            tried = f"{own}; timeout 3 bash -c '{six}'; {other}; timeout 3 bash -c '{four}'"
            return inside("machine-six", tried).split()

        with _reachable(estate.net.bridge):
            assert reached() == []
            network.release(Network(estate.net.bridge, estate.net.subnet), link)
            network.unbind(link)
            assert reached() == ["six", "four"], "it is the rules that stop it"
    commands.destroy(estate.host, machine["minion_id"])
    assert link not in subprocess.run(["ebtables-save"], capture_output=True, text=True, check=True).stdout


@contextmanager
def _reachable(bridge: str) -> Iterator[None]:
    """Give a bridge fd69::1/64 and a route to 192.0.2.9 while the block runs."""
    switch = Path("/proc/sys/net/ipv6/conf", bridge, "disable_ipv6")
    switch.write_text("0")
    ways = (["-6", "addr", "{}", "fd69::1/64", "dev", bridge, "nodad"], ["route", "{}", "192.0.2.9/32", "dev", bridge])
    for way in ways:
        subprocess.run(["ip", *(word.format("add") for word in way)], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", *(word.format("delete") for word in ways[1])], check=True)
        switch.write_text("1")  # its addresses of IPv6 go with it


def test_machines_that_are_let_reach_each_other(estate, launch, inside, booted):
    found = [launch(f"machine-{name}", between=True) for name in ("left", "right")]
    for machine in found:
        booted(machine["minion_id"])
    for machine, other in (found, found[::-1]):
        tried = f"timeout 20 bash -c 'echo > /dev/tcp/{other['address']}/80' && echo reached"
        assert inside(machine["minion_id"], tried) == "reached"


def test_a_capability_costs_the_user_namespace_and_works(estate, launch, inside, booted):
    machine = launch("machine-router", capabilities=["CAP_NET_ADMIN"])
    booted("machine-router")
    assert (machine["ids"], machine["shares_ids"]) == (0, "its fleet asks for CAP_NET_ADMIN")
    assert inside("machine-router", "ip addr add 10.250.99.9/32 dev host0 && echo done") == "done"
    commands.destroy(estate.host, "machine-router")


def test_a_machine_that_may_change_its_addresses_cannot_take_those_of_another(estate, launch, inside, booted):
    machine, other = (launch(f"machine-{name}", between=True, capabilities=["CAP_NET_ADMIN"]) for name in ("c", "d"))
    for one in (machine, other):
        booted(one["minion_id"])
    address, link = machine["address"], machines.find(estate.host, "machine-c").link
    gateway = network.gateway(Network(estate.net.bridge, estate.net.subnet))
    free = network.free_address(Network(estate.net.bridge, estate.net.subnet), [address, other["address"]])
    own, stolen = network.hardware_address(address), network.hardware_address(other["address"])
    attempts = [(address, own), (free, own), (gateway, own), (address, "02:00:00:00:00:01"), (address, stolen)]

    def received() -> list[bool]:
        """Return for each attempt whether the other machine got a datagram, and an answer to a question for it."""
        return [_is_sent(estate, source, hardware, other) for source, hardware in attempts]

    assert received() == [True, False, False, False, False]
    network.unbind(link)
    assert received()[:4] == [True, True, True, True], "it is the rules that stop it"
    network.bind(Network(estate.net.bridge, estate.net.subnet), address, link)
    for one in (machine, other):
        commands.destroy(estate.host, one["minion_id"])
    assert link not in subprocess.run(["ebtables-save"], capture_output=True, text=True, check=True).stdout


def _is_sent(estate, source: str, hardware: str, other: dict[str, Any]) -> bool:
    """Send a datagram from machine-c under these addresses; return whether the other machine got it."""
    target, its = other["address"], network.hardware_address(other["address"])
    with _in_network(estate, other["minion_id"], _RECEIVE.format(target)) as receiver:
        assert receiver.stdin and receiver.stdout and receiver.stdout.readline() == "ready\n"
        lines = (
            f"ip link set host0 address {hardware}",
            f"ip addr add {source}/32 dev host0 || true",
            f"ip neigh replace {target} lladdr {its} dev host0",
        )
        with _in_network(estate, "machine-c", _SEND.format("; ".join(lines), source, target)) as sender:
            assert sender.wait() == 0
        receiver.stdin.write("sent\n")
        receiver.stdin.flush()
        return receiver.stdout.readline() == f"{source}\n"


_RECEIVE = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(({!r}, 9999)); print("ready", flush=True)
input(); receiver.settimeout(1)
try: print(receiver.recvfrom(9)[1][0])
except TimeoutError: print("nothing")
"""
_SEND = """
import socket, subprocess
subprocess.run(["sh", "-ec", {!r}], check=True)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(({!r}, 0)); sender.sendto(b"x", ({!r}, 9999))
"""


def _in_network(estate, minion_id: str, program: str) -> subprocess.Popen[str]:
    """Run a Python program in the network of a machine, with the rights of a root that may change addresses."""
    init = nspawn.find_init(cgroup(estate, minion_id))
    entered = ["nsenter", f"--net=/proc/{init}/ns/net", sys.executable, "-c", program]
    return subprocess.Popen(entered, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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
    assert launch("machine-off")["running"], "a second launch starts it again"
    assert commands.destroy(estate.host, "machine-off")


def power_cut(estate, *minion_ids: str) -> None:
    """Let machines end as those of a host do whose power was cut."""
    for minion_id in minion_ids:
        for pid in cgroup(estate, minion_id).pids():
            with suppress(ProcessLookupError):  # with its first process all others end
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda minion_id=minion_id: not listed(estate)[minion_id], 20)


def started_at_boot(estate) -> tuple[int, dict[str, Any]]:
    """Run what the unit of systemd runs; return its exit code and what it says."""
    program = [sys.executable, "-m", host_boot.PROGRAM, str(estate.host.root)]
    done = subprocess.run(program, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


def test_machines_come_back_with_their_host(estate, launch, inside, booted):
    names = ["machine-back-a", "machine-back-b"]
    before = {name: launch(name, capabilities=["CAP_NET_ADMIN"] if name[-1] == "b" else []) for name in names}
    for name in names:
        booted(name)
        inside(name, "echo mine > /var/lib/own")
    ids = [inside(name, "cat /etc/machine-id") for name in names]
    assert len(set(ids)) == 2
    key = "/var/lib/salt/pki/minion/minion.pem"  # the minion makes it some time after the boot
    keys = [inside(name, f"until test -s {key}; do sleep 0.2; done; sha256sum {key}") for name in names]
    power_cut(estate, *names)
    code, said = started_at_boot(estate)
    assert (code, said["started"], said["failed"]) == (0, names, {}), said
    for name in names:
        booted(name)
        assert inside(name, "cat /var/lib/own; systemctl is-active nginx") == "mine\nactive"
        with urllib.request.urlopen(f"http://{before[name]['address']}/", timeout=5) as page:
            assert page.status == 200
    assert [inside(name, f"sha256sum {key}") for name in names] == keys
    assert [inside(name, "cat /etc/machine-id") for name in names] == ids, "its journal goes on where it was"
    now = {one["minion_id"]: one for one in commands.list_machines(estate.host)}
    changes = {key for name in names for key in before[name] if before[name][key] != now[name][key]}
    assert changes == {"since"}
    assert started_at_boot(estate)[1]["started"] == []
    power_cut(estate, names[0])
    commands.destroy(estate.host, names[0])
    assert names[0] not in started_at_boot(estate)[1]["started"], "one that is destroyed does not come back"


def test_a_machine_comes_back_only_from_an_image_that_is_signed(estate, launch, booted):
    launch("machine-forged", trusted=["A" * 43 + "="])
    booted("machine-forged")
    power_cut(estate, "machine-forged")
    code, said = started_at_boot(estate)
    assert code == 1 and "may not be used" in said["failed"]["machine-forged"]
    assert not listed(estate)["machine-forged"]


def test_a_machine_is_no_child_of_who_launched_it(estate, launch):
    """Who kills a command with all its children does not kill the machines that it started."""
    launch("machine-apart")
    outer = min(nspawn_of(cgroup(estate, "machine-apart")))
    ancestors = []
    while outer > 1:
        outer = int(Path(f"/proc/{outer}/stat").read_text().rpartition(")")[2].split()[1])
        ancestors.append(outer)
    assert os.getpid() not in ancestors and ancestors[-1] == 1


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
