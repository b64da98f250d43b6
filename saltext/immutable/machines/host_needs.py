"""What an image wants and its machines do not have: settings and modules of their host's kernel, and capabilities.

Reads the image's own files, so that it is the same for whoever wrote them. Changes nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from saltext.immutable import kernel
from saltext.immutable.machines import network_settings, overlay
from saltext.immutable.machines.nspawn import OWN
from saltext.immutable.text import plain

_MODULES = "etc/modules-load.d"
_MODULE = re.compile(r"[ \t]*([A-Za-z0-9_-]{1,60})[ \t]*")
_SETTING = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
"""A path below /proc/sys and nowhere else."""
_OF_MACHINE = re.compile(
    r"net/core/(somaxconn|txrehash|rps_default_mask|xfrm_\w+)|net/(?!core/|nf_conntrack_max$|netfilter/nf_conntrack_(max|buckets)$"
    r"|ipv4/(tcp_mem|udp_mem|tcp_max_orphans|tcp_allowed_congestion_control)$).*|kernel/(hostname|domainname)"
)
"""Settings that each machine has for itself. Of ``net`` some are its host's: networks read them only, or not at all."""
_OF_IPC = re.compile(r"kernel/(auto_msgmni|msg[a-z0-9_]+|sem[a-z0-9_]*|shm[a-z0-9_]+)|fs/mqueue/[a-z0-9_]+")
"""Settings that a machine has for itself, and that nobody sets there."""
_MOST, _WIDTH, _LONGEST = 20, 80, 65_536
"""Sentences about one image (and units in one), characters of a value, bytes that are read of a file."""
FIREWALLS = tuple(
    f"{name}.service"
    for name in (
        *("ebtables", "ferm", "firewalld", "ip6tables", "iptables", "netfilter-persistent", "nftables", "shorewall"),
        *("shorewall6", "ufw"),
    )
)
"""Services that load rules of a firewall."""
_OWN, _PACKAGED = "etc/systemd/system", "usr/lib/systemd/system"
_ASKED = re.compile(r"(?m)^[ \t]*(?:Condition|Assert)Capability[ \t]*=[ \t]*(CAP_[A-Z_]{1,40})[ \t]*$")


def unmet(
    layers: Path,
    lower: Sequence[str],
    running: Sequence[str] = (),
    capabilities: Collection[str] = (),
    root: Path = Path("/"),
) -> list[str]:
    """Return a sentence for each setting and module of an image that its host's kernel does not have.

    The first one is about the services that a machine leaves out, since it does not have their capabilities.

    ``lower``: short names of the image's layers, root first; ``running``: the units that its states want running;
    ``capabilities``: what its machines have besides their own; ``root``: where ``proc`` and ``sys`` of the host are.
    """
    left_out = _left_out(_asked_capabilities(layers, lower, running), {*OWN, *capabilities})
    found = chain(left_out, _settings(layers, lower, root), _modules(layers, lower, root))
    return list(islice(found, _MOST))


def _left_out(asked: Mapping[str, Sequence[str]], capabilities: Collection[str]) -> Iterator[str]:
    missing = {unit: [name for name in names if name not in capabilities] for unit, names in asked.items()}
    units = [f"{unit} (it needs {' and '.join(names)})" for unit, names in missing.items() if names]
    if units:
        more = f" and {len(units) - _MOST} more" if len(units) > _MOST else ""
        yield (
            f"not applicable on these machines: {', '.join(units[:_MOST])}{more}; capabilities in the settings of the "
            "fleet's provider give machines what they need"
        )


def _asked_capabilities(layers: Path, lower: Sequence[str], running: Sequence[str]) -> dict[str, list[str]]:
    """Return the capabilities that services of an image ask for: those that states want running, and firewalls.

    ``lower``: short names of the image's layers, root first. ``running``: names of the units that states want running.
    Services that ask for none are left out.
    """
    firewalls = (unit for unit in FIREWALLS if _is_enabled(layers, lower, unit))
    found = {unit: sorted(_asked(layers, lower, unit)) for unit in sorted({*running, *firewalls})}
    return {unit: names for unit, names in found.items() if names}


def _is_enabled(layers: Path, lower: Sequence[str], unit: str) -> bool:
    """Tell whether a target of the image wants a service that is not masked."""
    wants = (name for name in overlay.names(layers, lower, _OWN) if name.endswith(".wants"))
    is_wanted = any(overlay.top_link(layers, lower, f"{_OWN}/{name}/{unit}") for name in wants)
    return is_wanted and overlay.top_link(layers, lower, f"{_OWN}/{unit}") != os.devnull


def _asked(layers: Path, lower: Sequence[str], unit: str) -> set[str]:
    """Return the capabilities that a service asks for, in its file or in a file that adds to it."""
    added = (f"{place}/{unit}.d" for place in (_OWN, _PACKAGED))
    files = [f"{folder}/{name}" for folder in added for name in overlay.names(layers, lower, folder)]
    own = (overlay.top_file(layers, lower, f"{place}/{unit}") for place in (_OWN, _PACKAGED))
    read = [next(filter(None, own), None), *(overlay.top_file(layers, lower, name) for name in files)]
    return {name for file in read if file for name in _ASKED.findall(_read(file))}


def _settings(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    for path, wanted in network_settings.all_of_image(layers, lower).items():
        name = path.replace("/", ".")
        if not _SETTING.fullmatch(path) or _OF_MACHINE.fullmatch(path):  # the image names the path: it may be any
            continue
        if _OF_IPC.fullmatch(path):
            yield f"{name}={wanted} has no effect: machines keep the kernel's own value"
            continue
        try:
            now = _read(root / "proc/sys" / path)
        except FileNotFoundError:
            yield f"the host needs {name}={wanted}: its kernel has no such setting"
            continue
        except OSError:  # one that cannot be read, vm.compact_memory
            continue
        if now.split() != wanted.split():
            yield f"the host needs {name}={wanted}: {plain(' '.join(now.split())[:_WIDTH])} now"


def _read(file: Path) -> str:
    """Return the beginning of a file; only of a regular one, which no link leads to."""
    with kernel.opened(str(file)) as opened:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise PermissionError(errno.EACCES, "not a regular file", str(file))
        return os.read(opened, _LONGEST).decode(errors="replace")


def _modules(layers: Path, lower: Sequence[str], root: Path) -> Iterator[str]:
    built_in = _built_in(root)
    for line in network_settings.lines(layers, lower, _MODULES):
        module = _MODULE.fullmatch(line)
        name = module[1].replace("-", "_") if module else ""
        if name and name not in built_in and not (root / "sys/module" / name).exists():
            yield f"the host needs the module {name}: it is not loaded now"


def _built_in(root: Path) -> frozenset[str]:
    """Return the names of the modules that are part of the host's kernel."""
    try:
        text = (root / "lib/modules" / os.uname().release / "modules.builtin").read_text()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(Path(line).name.partition(".")[0].replace("-", "_") for line in text.splitlines())
