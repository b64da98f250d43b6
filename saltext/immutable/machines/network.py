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
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def gateway(network: Network) -> str:
    """Return the address of the bridge, which is the machines' gateway."""
    return str(next(_subnet(network).hosts()))


def prefix(network: Network) -> int:
    """Return the prefix length of the subnet."""
    return _subnet(network).prefixlen


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
    for rule in [*_rules(network), _between(network)]:
        while run(_iptables("-D", rule), check=False).returncode == 0:
            pass


def delete_link(link: str) -> None:
    """Delete a machine's link, both ends. Raises CommandExecutionError if it is still there after 10 s."""
    deadline = time.monotonic() + 10.0
    while _exists(link):  # the kernel may delete it at the same time, together with the machine's end
        done = run(["ip", "link", "delete", link], check=False)
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"the network link {link} cannot be deleted: {done.stderr.strip()}")
        time.sleep(0.01)


def resolv_conf() -> str:
    """Return a resolv.conf for machines, from this host's, or ''.

    Machines cannot reach a name server on this host's loopback, and one that does not answer delays Salt's start by 40
    seconds, so such a line is left out.
    """
    for file in RESOLVERS:
        lines = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in lines if not _on_loopback(line)]
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
