"""The provider ``nspawn``: machines on one Linux host, by systemd-nspawn, directly on the layers of the image."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.builder.states import minion_config
from saltext.immutable.images import sign, verify
from saltext.immutable.machines import commands, network
from saltext.immutable.machines.nspawn import CAPABILITIES
from saltext.immutable.minions import machine_config
from saltext.immutable.providers import Identity, Instance
from saltext.immutable.spec import reading
from saltext.immutable.text import quoted
from saltext.immutable.worker import Functions, Worker

_SETTINGS = {"memory", "cpus", "minion", "network", "capabilities"}
_LAUNCH_WITHIN = 20.0
"""Seconds after which the host must not start a launch any more. Shorter than `worker.JOB_LOST_AFTER`: after that the
master searches the list of machines, and a machine that is not in it must not appear later."""
_LOCAL: Functions = {
    "launch": commands.launch,
    "list_machines": commands.list_machines,
    "destroy": commands.destroy,
    "console": commands.console,
    "require": verify.require,
    "unmet": commands.unmet,
}


class Nspawn:
    """``provider: {name: nspawn, memory: 1G, cpus: 2, minion: {...}, network: {...}, capabilities: [...]}``.

    ``minion`` is additional minion config. ``network``: ``between: true`` lets the fleet's machines reach the others of
    their bridge, and these them; ``ports``: TCP ports of the host that they reach, besides the master's two.
    ``capabilities``: names of further capabilities, which cost the machines their user namespace.
    """

    settles = 0.0
    concurrency = 8

    def __init__(self, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> None:
        self._memory = memory(settings.get("memory", "1G"))
        self._cpus = cpus(settings.get("cpus"))
        self._further = {**network_of(settings.get("network")), **_capabilities(settings.get("capabilities"))}
        self._settings = spec.settings(opts)
        master = self._settings.master or network.gateway(self._settings.network)
        # A generation of an older version may have more in its settings; those have no effect.
        own = {key: value for key, value in (settings.get("minion") or {}).items() if key in minion_config.SETTABLE}
        self._minion = {**own, **machine_config(opts, master)}
        self._host = Worker(opts, self._settings, "machine", _LOCAL)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raise ``SaltInvocationError`` if a setting is wrong."""
        if unknown := set(settings) - _SETTINGS:
            names = ", ".join(sorted(map(quoted, unknown)))
            known = ", ".join(sorted(_SETTINGS))
            raise SaltInvocationError(f"provider: unknown setting of nspawn: {names}; it has {known}")
        memory(settings.get("memory", "1G"))
        cpus(settings.get("cpus"))
        if settings.get("minion") is not None:
            _require_settable(settings["minion"])
        network_of(settings.get("network"))
        _capabilities(settings.get("capabilities"))

    def publish(self, image: str) -> str:
        """Return the digest itself, since the layers are on the host already; raise unless their signature is valid."""
        return str(self._host("require", digest=image, trusted=sign.trusted(self._settings)))

    def launch(self, published: str, identity: Identity) -> str:
        """Start a machine; its ref is its minion id."""
        own = {"fleet": identity.fleet, "generation": identity.generation, "installation": identity.installation}
        order = {
            **own,
            **self._further,
            "minion_id": identity.minion_id,
            "image": published,
            "minion": {**self._minion, "id": identity.minion_id, "immutable_machine": own},
            "bridge": self._settings.network.bridge,
            "subnet": self._settings.network.subnet,
            "memory": self._memory,
            "cpus": self._cpus,
            "before": time.time() + _LAUNCH_WITHIN,
            "trusted": sign.trusted(self._settings),
        }
        return str(self._host("launch", order=order)["minion_id"])

    def unmet(self, image: str) -> Sequence[str]:
        """Return what an image wants of the host's kernel, which its machines share, and what is not so there."""
        found: Sequence[str] = self._host("unmet", image=image)
        return found

    def list(self, fleet: str | None = None) -> list[Instance]:
        """Return the machines of the host, from its folders and cgroups."""
        found = self._host("list_machines")
        return [_instance(machine) for machine in found if fleet in (None, machine["fleet"])]

    def destroy(self, ref: str) -> None:
        """Destroy a machine and wait until it is gone."""
        self._host("destroy", minion_id=ref)

    def console(self, ref: str) -> str:
        """Return the end of the machine's console output."""
        return str(self._host("console", minion_id=ref))


def _instance(machine: Mapping[str, Any]) -> Instance:
    names = ("minion_id", "fleet", "generation", "image", "running", "address", "born", "installation")
    further = {name: machine.get(name) or 0 for name in ("since", "ended_with_host")}  # an older pack says nothing
    return Instance(
        ref=machine["minion_id"],
        **{name: machine[name] for name in names},
        restarted=float(further["since"]),
        ended_with_host=bool(further["ended_with_host"]),
        damaged=machine.get("damaged") or None,
    )


def memory(value: Any) -> int:
    """Return a number of bytes for ``512M``, ``1G`` or a number of bytes."""
    try:
        return reading.size(value)
    except ValueError as err:
        raise SaltInvocationError(f"provider:memory: {err}") from err


def cpus(value: Any) -> float | None:
    """Return a number of CPUs for ``2`` or ``0.5``; None means no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SaltInvocationError(f"provider:cpus: {quoted(value)} is not a number of CPUs; write 2 or 0.5")
    return float(value)


def network_of(value: Any) -> dict[str, Any]:
    """Return what of ``network`` goes into an order: between and ports, where they are given."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or set(value) - {"between", "ports"}:
        raise SaltInvocationError(f"provider:network: {quoted(value)} is wrong; write {{between: true, ports: [3142]}}")
    between, ports = value.get("between", False), value.get("ports", [])
    if not isinstance(between, bool):
        raise SaltInvocationError(f"provider:network:between: {quoted(between)} is neither true nor false")
    if not isinstance(ports, list) or not all(_is_port(port) for port in ports):
        raise SaltInvocationError(f"provider:network:ports: {quoted(ports)} is no list of ports; write [3142]")
    return {**({"between": True} if between else {}), **({"ports": ports} if ports else {})}


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16


def _capabilities(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, list) or not all(isinstance(name, str) and name in CAPABILITIES for name in value):
        raise SaltInvocationError(
            f"provider:capabilities: {quoted(value)} is no list of capabilities; write [CAP_NET_ADMIN] "
            "(capabilities(7) has all names)"
        )
    return {"capabilities": value} if value else {}


def _require_settable(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise SaltInvocationError(
            f"provider:minion: {quoted(value)} is not a mapping of minion config; write {{log_level: info}}"
        )
    if found := list(minion_config.not_settable(value)):
        raise SaltInvocationError("\n".join(f"provider:minion: {each}" for each in found))
