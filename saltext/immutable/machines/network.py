"""The bridge of this host's machines: created with the first machine, removed with the last.

Each machine has a network namespace that only its own processes keep, so it cannot outlive them.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from pathlib import Path

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import run
from saltext.immutable.spec.model import Network

COMMENT = "saltext-immutable"
"""Alias of our bridges and comment of our firewall rules."""
_DNS = 53
_IPTABLES, _IPTABLES6 = "iptables", "ip6tables"
_IPV6 = Path("/proc/sys/net/ipv6")
_SOURCES = ("-p IPv4 --ip-src", "-p ARP --arp-ip-src")
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def gateway(network: Network) -> str:
    """Return the address of the bridge, which is the machines' gateway."""
    return str(next(_subnet(network).hosts()))


def prefix(network: Network) -> int:
    """Return the prefix length of the subnet."""
    return _subnet(network).prefixlen


def netmask(network: Network) -> str:
    """Return the netmask of the subnet."""
    return str(_subnet(network).netmask)


def free_address(network: Network, taken: Iterable[str]) -> str:
    """Return the lowest free address.

    ``taken``: the machines' addresses. Raises CommandExecutionError where all are taken.
    """
    used = {gateway(network), *taken}
    for address in map(str, _subnet(network).hosts()):
        if address not in used:
            return address
    raise CommandExecutionError(
        f"every address of {network.subnet} is taken; set a larger immutable:network:subnet in the master config"
    )


def up(network: Network) -> None:
    """Create the bridge and firewall rules where they are missing. An existing bridge is used as it is.

    Raises SaltInvocationError where the subnet overlaps with another network of this host.
    """
    if not _exists(network.bridge):
        _refuse_overlap(network)
        run(["ip", "-batch", "-"], stdin=(
            f"link add {network.bridge} type bridge\n"
            f"link set {network.bridge} alias {COMMENT}\n"
            f"addr add {gateway(network)}/{prefix(network)} dev {network.bridge}\n"
            f"link set {network.bridge} up\n"
        ))  # fmt: skip
        # No IPv6: with the link-local address that the kernel would give it, machines could reach this host.
        if (switch := Path("/proc/sys/net/ipv6/conf", network.bridge, "disable_ipv6")).exists():
            switch.write_text("1\n")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text().strip() != "1":
        forward.write_text("1\n")
    # On a bridge of the operator's own, other hosts are among those that its machines reach.
    for rule in _rules(network) + ([_between(network)] if _is_ours(network) else []):
        if run(_iptables("-C", rule), check=False).returncode:
            run(_iptables("-I", rule))


def down(network: Network) -> None:
    """Remove the firewall rules, and the bridge if we created it. Called when no machine uses it."""
    if _is_ours(network):
        run(["ip", "link", "delete", network.bridge])
    for rule in [*_rules(network), _between(network), _jump(network)]:
        while run(_iptables("-D", rule), check=False).returncode == 0:
            pass
    for verb in ("-F", "-X"):
        run(["iptables", "-w", "10", verb, _chain(network)], check=False)


def confine(network: Network, address: str, link: str, ports: Iterable[int] | None, between: bool) -> None:
    """Let a machine reach these TCP ports of this host and no others (None: all); answers to this host pass.

    ``between``: it reaches other machines of its bridge, also where the kernel shows bridged packets to the firewall.
    ``link`` names the rules, for `release`.
    """
    chain, own = _chain(network), f"-m comment --comment {link}"
    if run(_iptables("-C", _jump(network)), check=False).returncode:
        # On a bridge of the operator's own, other hosts reach this one as before.
        rest = [f"-A {chain} -j DROP"] if _is_ours(network) else []
        _restore([f":{chain} - [0:0]", f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", *rest])
        run(_iptables("-I", _jump(network)))
    source = f"-s {address}/32"
    # The last is the first in the chain then, right below the rule for answers.
    rules = [f"-I {chain} 2 {match} {own} -j RETURN" for match in ([source] if ports is None else _open(source, ports))]
    rules.insert(0, f"-I {chain} 2 {source} {own} -j DROP")
    if not _is_ours(network):
        # Others than machines reach this host by any protocol and address; a machine is known by its hardware address.
        its = f"-m mac --mac-source {hardware_address(address)}"
        rules.append(f"-I {chain} 2 {its} ! {source} {own} -j DROP")
        if _IPV6.exists():
            _restore([f"-I INPUT -i {network.bridge} {its} -m conntrack --ctstate NEW {own} -j DROP"], _IPTABLES6)
    on_bridge = f"-i {network.bridge} -o {network.bridge}"
    rules += [f"-I FORWARD {on_bridge} {way} {address}/32 {own} -j ACCEPT" for way in ("-s", "-d") if between]
    _restore(rules)


def _open(source: str, ports: Iterable[int]) -> list[str]:
    """Return what a machine may send to this host, as matches of rules: to these ports, and to a name server here."""
    names = [f"{source} -p {kind} --dport {_DNS}" for kind in ("tcp", "udp")] if _serves_names() else []
    return [f"{source} -p icmp", *names, *(f"{source} -p tcp --dport {port}" for port in sorted(ports))]


def release(network: Network, link: str) -> None:
    """Remove the rules of a machine from this host's firewall."""
    for command, chains in ((_IPTABLES, (_chain(network), "FORWARD")), (_IPTABLES6, ("INPUT",))):
        listed: list[str] = []
        for chain in chains:
            listed += run([command, "-w", "10", "-S", chain], check=False).stdout.splitlines()
        rules = ["-D" + line.removeprefix("-A") for line in listed if f"--comment {link} " in line]
        if rules:
            _restore(rules, command)


def hardware_address(address: str) -> str:
    """Return the hardware address of the machine with this address: neighbours need not learn another one."""
    return "02:69:" + ipaddress.IPv4Address(address).packed.hex(":")


def bind(network: Network, address: str, link: str) -> None:
    """Drop what a machine sends in the name of another address of its subnet, or from another hardware address.

    For machines that can change their addresses: those in the user namespace of this host. `unbind` ends it.
    """
    own = hardware_address(address)
    run(["ebtables-restore", "--noflush"], stdin="\n".join((
        "*nat",
        f":{link} RETURN",
        f"-A {link} -s ! {own} -j DROP",
        f"-A {link} -p ARP --arp-mac-src ! {own} -j DROP",
        *(f"-A {link} {source} {address} -j RETURN" for source in _SOURCES),
        *(f"-A {link} {source} {network.subnet} -j DROP" for source in _SOURCES),
        *([f"-A {link} -p IPv6 -j DROP"] if _is_ours(network) else []),
        f"-A PREROUTING -i {link} -j {link}",
        "",
    )))  # fmt: skip


def unbind(link: str) -> None:
    """Remove what `bind` added, if it did."""
    for change in (["-D", "PREROUTING", "-i", link, "-j", link], ["-F", link], ["-X", link]):
        run(["ebtables", "-t", "nat", *change], check=False)


def _restore(rules: list[str], command: str = _IPTABLES) -> None:
    """Add or remove rules of the table filter in one step."""
    run([f"{command}-restore", "--wait", "10", "--noflush"], stdin="\n".join(["*filter", *rules, "COMMIT", ""]))


def _jump(network: Network) -> list[str]:
    """Return the rule that sends what machines send to this host into their chain."""
    return ["filter", "INPUT", "-i", network.bridge, *_comment(network), "-j", _chain(network)]


def _chain(network: Network) -> str:
    return f"immutable-{network.bridge}"  # at most 28 characters: a bridge has 15


def _serves_names() -> bool:
    """Tell whether a name server of `resolv_conf` is this host itself."""
    own = _own_addresses("-4")
    return any(line.split()[1:2] and line.split()[1] in own for line in resolv_conf().splitlines())


def _own_addresses(family: str) -> set[str]:
    """Return the addresses of this host. ``family``: ``-4`` or ``-6``."""
    shown = run(["ip", family, "-o", "addr", "show"]).stdout.splitlines()
    return {line.split()[3].partition("/")[0] for line in shown}


def add_tap(network: Network, link: str, between: bool) -> None:
    """Make the link of a machine with a kernel of its own. `delete_link` removes it."""
    run(["ip", "tuntap", "add", "dev", link, "mode", "tap"])
    run(["ip", "link", "set", link, "master", network.bridge, "up"])
    run(["ip", "link", "set", "dev", link, "type", "bridge_slave", "isolated", "off" if between else "on"])


def delete_link(link: str) -> None:
    """Delete a machine's link, both ends. Raises CommandExecutionError if it is still there after 10 s."""
    deadline = time.monotonic() + 10.0
    while _exists(link):  # the kernel may delete it at the same time, together with the machine's end
        done = run(["ip", "link", "delete", link], check=False)
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"the network link {link} cannot be deleted: {done.stderr.strip()}; repeat the command"
            )
        time.sleep(0.01)


def resolv_conf() -> str:
    """Return a resolv.conf for machines, from this host's, or ''.

    Machines reach no name server on this host's loopback, nor this host by IPv6; one that does not answer delays Salt's
    start by 40 seconds, so such a line is left out.
    """
    own = _own_addresses("-6")
    for file in RESOLVERS:
        lines = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in lines if not _on_loopback(line) and line.split()[1:2] not in [[each] for each in own]]
        if any(line.startswith("nameserver") for line in kept):
            return "\n".join(kept) + "\n"
    return ""


def _on_loopback(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver" and words[1].startswith(("127.", "::1"))


def _subnet(network: Network) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(network.subnet)


def _exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _is_ours(network: Network) -> bool:
    alias = Path("/sys/class/net", network.bridge, "ifalias")
    return alias.exists() and alias.read_text().strip() == COMMENT


def _refuse_overlap(network: Network) -> None:
    for line in run(["ip", "-4", "-o", "addr", "show"]).stdout.splitlines():
        _, link, _, address, *_ = line.split()
        if ipaddress.IPv4Interface(address).network.overlaps(_subnet(network)):
            raise SaltInvocationError(
                f"immutable:network:subnet: {network.subnet} overlaps with {address} on {link} of this host; "
                "set another subnet in the master config"
            )


def _rules(network: Network) -> list[list[str]]:
    """Return our firewall rules. They are needed where FORWARD is DROP, as with a Docker engine."""
    comment = _comment(network)
    replies = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]  # no connections from outside
    # Not for this host's connections to its own address on the bridge, which would break when the rule is added.
    outgoing = ["-s", network.subnet, "!", "-d", network.subnet, "!", "-o", network.bridge]
    return [
        ["filter", "FORWARD", "-i", network.bridge, *comment, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-o", network.bridge, *replies, *comment, "-j", "ACCEPT"],
        ["nat", "POSTROUTING", *outgoing, *comment, "-j", "MASQUERADE"],
    ]


def _between(network: Network) -> list[str]:
    """Return the rule that this host does not route between machines, whose ports are isolated from each other."""
    return ["filter", "FORWARD", "-i", network.bridge, "-o", network.bridge, *_comment(network), "-j", "DROP"]


def _comment(network: Network) -> list[str]:
    return ["-m", "comment", "--comment", f"{COMMENT} {network.bridge}"]


def _iptables(verb: str, rule: list[str]) -> list[str]:
    table, chain, *match = rule
    return ["iptables", "-w", "10", "-t", table, verb, chain, *match]
