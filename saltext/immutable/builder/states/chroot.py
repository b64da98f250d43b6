"""What states cannot be believed where no init runs (``bake_in: chroot``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

_NO_INIT = "no init runs, so nothing is started and nobody sees whether it would"
_KERNEL = "it changes or asks the kernel of the builder, not that of a machine"
_SERVER = "its server does not run"
_DAEMON = "it asks a daemon that does not run"
# Globs of states -> why.
_DOUBTED = {
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


def doubts(result: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each state that a chroot makes unreliable; ``result`` is what ``state.apply`` returns."""
    found = ((state, function, _why(function, str(state.get("name", "")))) for state, function in _functions(result))
    return sorted(_sentence(state, function, why) for state, function, why in found if why)


def _functions(result: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    for tag, state in result.items():
        parts = tag.split("_|-")
        yield state, f"{parts[0]}.{parts[-1]}"


def _why(function: str, name: str) -> str:
    """Return why a state cannot be believed; '' if it can, as far as one sees."""
    if function.startswith("cmd."):
        return next((why for words, why in _COMMANDS.items() if re.search(_WORD.format(words), name)), "")
    if function.startswith("module."):
        function = name
    return next((why for pattern, why in _DOUBTED.items() if fnmatchcase(function, pattern)), "")


def _sentence(state: Mapping[str, Any], function: str, why: str) -> str:
    where = f" in {state['__sls__']}" if state.get("__sls__") else ""
    return f"{state.get('__id__')}{where}: {function} is not to be relied on in a chroot: {why}"
