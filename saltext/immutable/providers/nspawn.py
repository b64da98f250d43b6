"""The provider ``nspawn``: machines on one Linux host, by systemd-nspawn, directly on the layers of the image."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.builder.states import minion_config
from saltext.immutable.images import sign, verify
from saltext.immutable.machines import commands, network
from saltext.immutable.minions import machine_config
from saltext.immutable.providers import Identity, Instance
from saltext.immutable.text import quoted
from saltext.immutable.worker import Functions, Worker

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LAUNCH_WITHIN = 20.0
"""Seconds after which the host must not start a launch any more. Shorter than `worker.JOB_LOST_AFTER`: after that the
master searches the list of machines, and a machine that is not in it must not appear later."""
_LOCAL: Functions = {
    "launch": commands.launch,
    "list_machines": commands.list_machines,
    "destroy": commands.destroy,
    "console": commands.console,
    "require": verify.require,
}


class Nspawn:
    """``provider: {name: nspawn, memory: 1G, cpus: 2, minion: {...}}``; ``minion`` is additional minion config."""

    settles = 0.0
    concurrency = 8

    def __init__(self, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> None:
        self._memory = memory(settings.get("memory", "1G"))
        self._cpus = cpus(settings.get("cpus"))
        self._settings = spec.settings(opts)
        master = self._settings.master or network.gateway(self._settings.network)
        # A generation of an older version may have more in its settings; those have no effect.
        own = {key: value for key, value in (settings.get("minion") or {}).items() if key in minion_config.SETTABLE}
        self._minion = {**own, **machine_config(opts, master)}
        self._host = Worker(opts, self._settings, "machine", _LOCAL)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raise ``SaltInvocationError`` if a setting is wrong."""
        unknown = set(settings) - {"memory", "cpus", "minion"}
        if unknown:
            names = ", ".join(sorted(map(quoted, unknown)))
            raise SaltInvocationError(f"provider: unknown setting of nspawn: {names}; it has memory, cpus, minion")
        memory(settings.get("memory", "1G"))
        cpus(settings.get("cpus"))
        if settings.get("minion") is not None:
            _require_settable(settings["minion"])

    def publish(self, image: str) -> str:
        """Return the digest itself, since the layers are on the host already; raise unless their signature is valid."""
        return str(self._host("require", digest=image, trusted=sign.trusted(self._settings)))

    def launch(self, published: str, identity: Identity) -> str:
        """Start a machine; its ref is its minion id."""
        own = {"fleet": identity.fleet, "generation": identity.generation, "installation": identity.installation}
        order = {
            **own,
            "minion_id": identity.minion_id,
            "image": published,
            "minion": {**self._minion, "id": identity.minion_id, "immutable_machine": own},
            "bridge": self._settings.network.bridge,
            "subnet": self._settings.network.subnet,
            "memory": self._memory,
            "cpus": self._cpus,
            "before": time.time() + _LAUNCH_WITHIN,
        }
        return str(self._host("launch", order=order)["minion_id"])

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
    return Instance(ref=machine["minion_id"], **{name: machine[name] for name in names})


def memory(value: Any) -> int:
    """Return a number of bytes for ``512M``, ``1G`` or a number of bytes."""
    text = str(value).strip().upper()
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
    if not number.isdigit() or int(number) == 0:
        raise SaltInvocationError(f"provider:memory: {quoted(value)} is not a size; write 512M or 1G")
    return int(number) * _UNITS.get(unit, 1)


def cpus(value: Any) -> float | None:
    """Return a number of CPUs for ``2`` or ``0.5``; None means no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SaltInvocationError(f"provider:cpus: {quoted(value)} is not a number of CPUs; write 2 or 0.5")
    return float(value)


def _require_settable(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise SaltInvocationError(
            f"provider:minion: {quoted(value)} is not a mapping of minion config; write {{log_level: info}}"
        )
    if found := list(minion_config.not_settable(value)):
        raise SaltInvocationError("\n".join(f"provider:minion: {each}" for each in found))
