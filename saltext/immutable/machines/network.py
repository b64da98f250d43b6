"""The bridge that this host's machines live on: made with the first machine, gone with the last.

Each machine has a network namespace that nothing pins but its own processes, so it cannot outlive them.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from pathlib import Path

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import run
from saltext.immutable.spec.model import Network

OURS = "saltext-immutable"
RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def gateway(network: Network) -> str:
    """Return the bridge's own address, which is the machines' way out."""
    return str(next(_subnet(network).hosts()))


def prefix(network: Network) -> int:
    """Return the length of the subnet's prefix."""
    return _subnet(network).prefixlen


def free_address(network: Network, taken: Iterable[str]) -> str:
    """Return the lowest address that nobody has."""
    used = {gateway(network), *taken}
    for address in map(str, _subnet(network).hosts()):
        if address not in used:
            return address
    raise CommandExecutionError(
        f"every address of {network.subnet} is taken; set a larger immutable:network:subnet in the config"
    )


def up(network: Network) -> None:
    """Make the bridge and its rules, if they are not there yet; a bridge that is there is taken as it is."""
    if not _exists(network.bridge):
        _refuse_overlap(network)
        run(["ip", "-batch", "-"], stdin=(
            f"link add {network.bridge} type bridge\n"
            f"link set {network.bridge} alias {OURS}\n"
            f"addr add {gateway(network)}/{prefix(network)} dev {network.bridge}\n"
            f"link set {network.bridge} up\n"
        ))  # fmt: skip
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text().strip() != "1":
        forward.write_text("1\n")
    for rule in _rules(network):
        if run(_iptables("-C", rule), check=False).returncode:
            run(_iptables("-I", rule))


def down(network: Network) -> None:
    """Take the rules away, and the bridge if it was made here; called when no machine is on it any more."""
    alias = Path("/sys/class/net", network.bridge, "ifalias")
    if alias.exists() and alias.read_text().strip() == OURS:
        run(["ip", "link", "delete", network.bridge])
    for rule in _rules(network):
        while run(_iptables("-D", rule), check=False).returncode == 0:
            pass


def unplug(link: str) -> None:
    """Delete a machine's link; its other end goes with it."""
    deadline = time.monotonic() + 10.0
    while _exists(link):  # it may be going away by itself, as its other end does with the machine
        done = run(["ip", "link", "delete", link], check=False)
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"the link {link} cannot be deleted: {done.stderr.strip()}")
        time.sleep(0.01)


def resolv_conf() -> str:
    """Return a resolv.conf that works inside a machine.

    A name server on this host's loopback is not to be reached from there, and one that does not answer
    costs Salt 40 seconds at start: then rather none.
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


def _refuse_overlap(network: Network) -> None:
    for line in run(["ip", "-4", "-o", "addr", "show"]).stdout.splitlines():
        _, link, _, address, *_ = line.split()
        if ipaddress.IPv4Interface(address).network.overlaps(_subnet(network)):
            raise SaltInvocationError(
                f"immutable:network:subnet: {network.subnet} overlaps with {address} on {link} of this host; "
                "set another subnet"
            )


def _rules(network: Network) -> list[list[str]]:
    """Rules of our own: a Docker engine, for one, leaves FORWARD at DROP."""
    name = ["-m", "comment", "--comment", f"{OURS} {network.bridge}"]
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]  # nobody outside may begin
    # Not what this host says to its own address on the bridge: such a connection would break when the rule comes.
    away = ["-s", network.subnet, "!", "-d", network.subnet, "!", "-o", network.bridge]
    return [
        ["filter", "FORWARD", "-i", network.bridge, *name, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-o", network.bridge, *answers, *name, "-j", "ACCEPT"],
        ["nat", "POSTROUTING", *away, *name, "-j", "MASQUERADE"],
    ]


def _iptables(verb: str, rule: list[str]) -> list[str]:
    table, chain, *match = rule
    return ["iptables", "-w", "10", "-t", table, verb, chain, *match]
