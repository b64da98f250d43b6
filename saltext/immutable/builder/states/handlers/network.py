"""States of the network and its firewall: a bake writes their files and leaves its own network alone."""

from __future__ import annotations

import re

from saltext.immutable.builder.states.handlers.call import AT_LAUNCH, Call, Result

_NO_FIREWALLD = re.compile(r"not running|NOT_RUNNING|D-?Bus|firewall-cmd failed", re.IGNORECASE)
_SAVING = ("append", "insert", "delete", "set_policy")
FIREWALLS = {
    "iptables": ("netfilter-persistent.service", "load the saved rules of iptables"),
    "nftables": ("nftables.service", "load the saved rules of nftables, which /etc/nftables.conf has to include"),
}
"""By state module: the unit that loads saved rules, and what it does."""


def firewall(call: Call) -> Result:
    """`iptables.append` and the like: only saved rules are in the image. Chains and tables are saved with the rules."""
    family, _, function = call.function.partition(".")
    if function not in _SAVING:
        return call.run()
    unit, what = FIREWALLS[family]
    if family == "iptables" and call.salt["grains.get"]("os_family") != "Debian":
        unit = "iptables.service"
    if not call.get("save") and not any(rule.get("save") for rule in call.get("rules") or ()):
        return call.failed(
            f"{call.function} changes the rules of the machine that bakes, and no machine gets them; give save: True, "
            f"and let {unit} load the saved rules at boot, or {AT_LAUNCH}"
        )
    result = call.run()
    if result["result"] is False:
        return result
    if isinstance(call.get("save"), str):
        what, unit = f"load the rules of {call.get('save')}", "a unit of the tree"
    return {**result, **call.deferred(what, unit, result["changes"])}


def interface(call: Call) -> Result:
    """`network.managed`: the file is written; an interface of the machine that bakes is not touched."""
    result = call.run(noifupdown=True)
    if result["result"] is False or call.get("enabled") is False:
        return result
    return {**result, **call.deferred(f"set up {call.name}", _network_unit(call), result["changes"])}


def network(call: Call) -> Result:
    """`network.routes` and `network.system`: the files are written; the network is not restarted in the bake."""
    result = call.run(require_reboot=True)
    if result["result"] is False:
        return result
    what = f"routes of {call.name}" if call.function == "network.routes" else "settings of the network"
    return {**result, **call.deferred(f"apply the {what}", _network_unit(call), result["changes"])}


def _network_unit(call: Call) -> str:
    """Return the unit that reads what Salt writes of the network."""
    return "networking.service" if call.salt["grains.get"]("os_family") == "Debian" else "NetworkManager.service"


def firewalld(call: Call) -> Result:
    """`firewalld.*`: say what to do where the daemon does not run: its states speak with it, also to write files."""
    result = call.run_caught()
    if result["result"] is False and _NO_FIREWALLD.search(str(result["comment"])):
        hint = (
            "firewalld has to run, and in a container it cannot. Bake in a machine with a kernel of its own (bake_in: "
            "vm, with a service.running of firewalld before), or write /etc/firewalld/zones with file.managed"
        )
        result = {**result, "comment": f"{result['comment']}\n{hint}"}
    return result
