"""The machines' network: addresses, and a bridge that disturbs no other network. No command is run."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.machines import network
from saltext.immutable.spec.model import Network

HERE = Network("im0", "10.117.0.0/29")


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        pytest.param([], "10.117.0.2", id="the first is the bridge's own"),
        pytest.param(["10.117.0.2"], "10.117.0.3", id="the next"),
        pytest.param(["10.117.0.3"], "10.117.0.2", id="the lowest"),
        pytest.param(["", "10.99.0.2"], "10.117.0.2", id="what is no address of this subnet takes none"),
    ],
)
def test_free_address(taken, free):
    assert network.free_address(HERE, taken) == free


def test_a_full_subnet_is_an_error():
    taken = [f"10.117.0.{number}" for number in range(2, 7)]
    with pytest.raises(CommandExecutionError, match="set a larger immutable:network:subnet"):
        network.free_address(HERE, taken)


@given(st.integers(8, 29), st.sets(st.integers(1, 5)))
def test_addresses_are_unique_and_of_the_subnet(length, sizes):
    net, given_ = Network("im0", f"10.0.0.0/{length}"), []
    for _ in range(5):
        given_.append(network.free_address(net, given_))
    assert len({*given_, network.gateway(net)}) == 6
    assert network.prefix(net) == length


class Commands:
    """What was run; ``said`` answers by the first words of a command."""

    def __init__(self, **said: str) -> None:
        self.ran: list[str] = []
        self.said = said

    def __call__(self, command, *, check=True, stdin=None):
        self.ran.append(" ".join(map(str, command)) + (stdin or ""))
        missing = "-C" in command or "-D" in command
        return CompletedProcess(command, int(missing), self.said.get(command[0], ""), "")


@pytest.mark.parametrize(
    ("address", "overlaps"),
    [
        ("10.117.0.9/24", True),
        ("10.0.0.1/8", True),
        ("10.117.0.2/32", True),
        ("10.118.0.1/24", False),
        ("192.168.1.5/24", False),
    ],
)
def test_a_subnet_that_overlaps_with_one_of_the_host_is_refused(monkeypatch, address, overlaps):
    commands = Commands(ip=f"2: eth0    inet {address} brd 1.2.3.4 scope global eth0\n")
    monkeypatch.setattr(network, "run", commands)
    if overlaps:
        with pytest.raises(SaltInvocationError, match=f"overlaps with {address} on eth0 of this host"):
            network._refuse_overlap(HERE)
        assert len(commands.ran) == 1, "nothing was changed"
    else:
        network._refuse_overlap(HERE)


def test_a_bridge_that_is_not_ours_stays_after_the_last_machine(monkeypatch):
    commands = Commands()
    monkeypatch.setattr(network, "run", commands)
    network.down(Network("lo", "10.117.0.0/29"))
    assert not any("delete" in ran for ran in commands.ran)
    assert sum("-D" in ran for ran in commands.ran) == 5, "our own rules go"
    assert commands.ran[-2:] == ["iptables -w 10 -F immutable-lo", "iptables -w 10 -X immutable-lo"]


def test_a_machine_is_confined_to_its_ports_and_released_by_its_link(tmp_path, monkeypatch):
    chain = "immutable-im0"
    commands = Commands(ip="2: eth0 inet 192.0.2.7/24 brd x scope global eth0\n")
    monkeypatch.setattr(network, "run", commands)
    monkeypatch.setattr(network, "resolv_conf", lambda: "nameserver 192.0.2.7\n")
    monkeypatch.setattr(network, "_IPV6", tmp_path)
    network.confine(HERE, "10.117.0.2", "im77", [4506, 4505], between=False)
    own = "-m comment --comment im77"
    its = "-m mac --mac-source 02:69:0a:75:00:02"
    assert commands.ran[-2].splitlines()[1:-1] == [f"-I INPUT -i im0 {its} -m conntrack --ctstate NEW {own} -j DROP"]
    assert commands.ran[-1].splitlines()[1:-1] == [
        f"-I {chain} 2 -s 10.117.0.2/32 {own} -j DROP",
        f"-I {chain} 2 -s 10.117.0.2/32 -p icmp {own} -j RETURN",
        f"-I {chain} 2 -s 10.117.0.2/32 -p tcp --dport 53 {own} -j RETURN",
        f"-I {chain} 2 -s 10.117.0.2/32 -p udp --dport 53 {own} -j RETURN",
        f"-I {chain} 2 -s 10.117.0.2/32 -p tcp --dport 4505 {own} -j RETURN",
        f"-I {chain} 2 -s 10.117.0.2/32 -p tcp --dport 4506 {own} -j RETURN",
        f"-I {chain} 2 {its} ! -s 10.117.0.2/32 {own} -j DROP",
    ]
    monkeypatch.setattr(network, "resolv_conf", lambda: "nameserver 192.0.2.8\n")
    network.confine(HERE, "10.117.0.2", "im77", None, between=True)
    assert commands.ran[-1].splitlines()[1:-1] == [
        f"-I {chain} 2 -s 10.117.0.2/32 {own} -j DROP",
        f"-I {chain} 2 -s 10.117.0.2/32 {own} -j RETURN",
        f"-I {chain} 2 {its} ! -s 10.117.0.2/32 {own} -j DROP",
        f"-I FORWARD -i im0 -o im0 -s 10.117.0.2/32 {own} -j ACCEPT",
        f"-I FORWARD -i im0 -o im0 -d 10.117.0.2/32 {own} -j ACCEPT",
    ]
    mine, other = f"-A {chain} -s 10.117.0.2/32 {own} -j DROP", f"-A {chain} -s 10.117.0.3/32 {own}0 -j DROP"
    commands.said = {"iptables": "\n".join([f"-N {chain}", mine, other, ""])}
    network.release(HERE, "im77")
    assert "ip6tables -w 10 -S INPUT" in commands.ran
    assert set(commands.ran[-2].splitlines()[1:-1]) == {mine.replace("-A", "-D", 1)}


def test_a_link_that_is_gone_is_no_error(monkeypatch):
    commands = Commands()
    monkeypatch.setattr(network, "run", commands)
    network.delete_link("im0123456789")
    assert commands.ran == []


def test_a_link_that_the_kernel_deletes_meanwhile_is_no_error(monkeypatch):
    """Its other end is in the machine's namespace, which the kernel takes down at its own pace."""
    there = [True, True, False]
    monkeypatch.setattr(network, "run", lambda *_, **__: CompletedProcess([], 1, "", "Cannot find device"))
    monkeypatch.setattr(network, "_exists", lambda _: there.pop(0))
    monkeypatch.setattr(network.time, "sleep", lambda _: None)
    network.delete_link("im0123456789")
    assert there == []


def test_connections_of_this_host_to_its_own_address_are_not_masqueraded():
    """A connection that began before the rule would break: its replies would get another source address."""
    [rule] = [rule for rule in network._rules(HERE) if "MASQUERADE" in rule]
    assert rule[:8] == ["nat", "POSTROUTING", "-s", HERE.subnet, "!", "-d", HERE.subnet, "!"]
