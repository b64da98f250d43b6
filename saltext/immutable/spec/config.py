"""Read the settings of the infrastructure: ``immutable:`` in the master config or, on a builder, the minion config."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.spec import reading
from saltext.immutable.spec.fleets import master_budgets, windows
from saltext.immutable.spec.model import Network, Settings
from saltext.immutable.spec.section import Section, refuse
from saltext.immutable.text import quoted

_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
"""An interface's name has at most 15 bytes (IFNAMSIZ)."""


def settings(opts: Mapping[str, Any]) -> Settings:
    """Return the settings in ``opts['immutable']``; absent keys have their defaults.

    Raises ``SaltInvocationError`` with a line for each problem: the config path, what is wrong, what to write.
    """
    problems: list[str] = []
    read = Section("config immutable", opts.get("immutable", {}), problems)
    root = read.take("root", _path, Settings().root)
    found = Settings(
        root=root,
        store=read.take("store", _store, f"sqlite:///{root}/store.sqlite"),
        builder=read.take("builder", reading.minion_id, None),
        pillar_id=read.take("pillar_id", reading.minion_id, None),
        master=read.take("master", reading.text, None),
        network=_network(read.inside("network")),
        windows=windows(read),
        budgets=master_budgets(read.inside("budgets")),
        signing_key=read.take("signing_key", _path, None),
        trusted_keys=read.take("trusted_keys", _paths, ()),
        cache=read.take("cache", reading.either("use", "only"), "use"),
    )
    read.close()
    refuse("config immutable", problems)
    return found


def _network(read: Section) -> Network:
    default = Network()
    found = Network(
        bridge=read.take("bridge", _bridge, default.bridge),
        subnet=read.take("subnet", _subnet, default.subnet),
    )
    read.close()
    return found


def _path(value: object) -> Path:
    found = Path(reading.text(value))
    if not found.is_absolute() or ".." in found.parts:
        raise ValueError(f"must be an absolute path, not {quoted(str(value))}; write /var/lib/immutable")
    return found


def _paths(value: object) -> tuple[Path, ...]:
    return tuple(map(_path, reading.words(value)))


def _store(value: object) -> str:
    found = reading.text(value)
    if "://" not in found:
        raise ValueError(f"must be an SQLAlchemy URL, not {quoted(found)}; write sqlite:////path/store.sqlite")
    return found


def _bridge(value: object) -> str:
    found = reading.text(value)
    if not _BRIDGE.fullmatch(found):
        raise ValueError(f"{quoted(found)} is not an interface name; use at most 15 letters, digits, '.', '-', '_'")
    return found


def _subnet(value: object) -> str:
    found = reading.text(value)
    try:
        network = ipaddress.IPv4Interface(found).network
    except ValueError as err:
        raise ValueError(f"{quoted(found)} is not an IPv4 network; write 10.117.0.0/24") from err
    if network.with_prefixlen != found:
        raise ValueError(f"must be the network itself, not {quoted(found)}; write {network}")
    if network.prefixlen > 29:
        raise ValueError(f"{found} has too few addresses; write a /29 or a larger network")
    return found
