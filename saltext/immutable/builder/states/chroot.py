"""Which states are unreliable where no init runs (``bake_in: chroot``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

_NO_INIT = "no init runs, so no service starts, and a service that could not start is not noticed"
_KERNEL = "it reads or changes the kernel of the builder, not that of a machine"
_SERVER = "its server does not run"
_DAEMON = "it needs a daemon that does not run"
# Globs of states -> reason.
_UNRELIABLE = {
    "service.*": _NO_INIT,
    "supervisord.*": _NO_INIT,
    "docker_*.*": _DAEMON,
    "virt.*": _DAEMON,
    "firewalld.*": _DAEMON,
    "at.*": _DAEMON,
    "timezone.system": _DAEMON,
    "locale.system": _DAEMON,
    "sysctl.*": _KERNEL,
    "kmod.*": _KERNEL,
    "mount.*": _KERNEL,
    "network.*": _KERNEL,
    "iptables.*": _KERNEL,
    "nftables.*": _KERNEL,
    "ipset.*": _KERNEL,
    "selinux.*": _KERNEL,
    "apparmor.*": _KERNEL,
    "lvm.*": _KERNEL,
    "blockdev.*": _KERNEL,
    "raid.*": _KERNEL,
    "mysql_*.*": _SERVER,
    "postgres_*.*": _SERVER,
    "rabbitmq_*.*": _SERVER,
    "mongodb_*.*": _SERVER,
    "redis.*": _SERVER,
    "influxdb*.*": _SERVER,
    "elasticsearch*.*": _SERVER,
}
_COMMANDS = {
    r"systemctl|service|invoke-rc\.d|initctl|supervisorctl": _NO_INIT,
    r"hostnamectl|timedatectl|localectl|loginctl|busctl|docker|podman|virsh|firewall-cmd": _DAEMON,
    r"sysctl|modprobe|rmmod|insmod|mount|umount|ip|iptables|ip6tables|nft|swapon|swapoff|hostname": _KERNEL,
}
_WORD = r"(?:^|[\s;&|(`])(?:/(?:usr/)?s?bin/)?(?:{})(?=$|[\s;&|)`])"


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each state that is unreliable in a chroot. ``result``: the answer of ``state.apply``."""
    found = ((state, function, _reason(function, str(state.get("name", "")))) for state, function in _functions(result))
    return sorted(_sentence(state, function, reason) for state, function, reason in found if reason)


def _functions(result: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    for tag, state in result.items():
        parts = tag.split("_|-")
        yield state, f"{parts[0]}.{parts[-1]}"


def _reason(function: str, name: str) -> str:
    """Return why a state is unreliable, or ''. ``name``: the state's name, which is the command of ``cmd.run``."""
    if function.startswith("cmd."):
        return next((reason for words, reason in _COMMANDS.items() if re.search(_WORD.format(words), name)), "")
    if function.startswith("module."):
        function = name
    return next((reason for pattern, reason in _UNRELIABLE.items() if fnmatchcase(function, pattern)), "")


def _sentence(state: Mapping[str, Any], function: str, reason: str) -> str:
    where = f" in {state['__sls__']}" if state.get("__sls__") else ""
    return f"{state.get('__id__')}{where}: {function} is unreliable in a chroot: {reason}; set bake_in: machine"
