"""The provider ``nspawn``: machines on one Linux host, by systemd-nspawn, directly on the layers of the image."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saltext.immutable import spec
from saltext.immutable.images import sign, verify
from saltext.immutable.machines import commands, network
from saltext.immutable.machines.nspawn import CAPABILITIES
from saltext.immutable.minions import machine_config
from saltext.immutable.providers import Identity, Instance
from saltext.immutable.spec import reading
from saltext.immutable.spec.minion_settings import minion_settings
from saltext.immutable.spec.section import Section, refuse
from saltext.immutable.text import quoted
from saltext.immutable.worker import Functions, Worker

_MEMORY = reading.size("64M", "16384G")
"""A machine of a Debian with salt-minion takes more than the least."""
_CPUS = reading.number(0.01, 4096)
"""The kernel gives a group no less: a millisecond of its period of 100."""
_PORT = reading.whole(1, (1 << 16) - 1)
_MAY_BE_EMPTY = ("cpus", "minion", "network", "capabilities")
"""Settings that may be null, which is as if they were absent."""
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


@dataclass(frozen=True)
class _Settings:
    memory: int
    """Bytes."""
    cpus: float | None
    """None: no limit."""
    minion: Mapping[str, Any]
    further: Mapping[str, Any]
    """What else goes into an order, where it is given: between, ports, capabilities."""


class Nspawn:
    """``provider: {name: nspawn, memory: 1G, cpus: 2, minion: {...}, network: {...}, capabilities: [...]}``.

    ``minion`` is additional minion config. ``network``: ``between: true`` lets the fleet's machines reach the others of
    their bridge, and these them; ``ports``: TCP ports of the host that they reach, besides the master's two.
    ``capabilities``: names of further capabilities, which cost the machines their user namespace.
    """

    settles = 0.0
    concurrency = 8

    def __init__(self, settings: Mapping[str, Any], opts: Mapping[str, Any]) -> None:
        # What a generation of an older version has and this one would refuse has no effect.
        self._wanted = _read(settings, [])
        self._settings = spec.settings(opts)
        master = self._settings.master or network.gateway(self._settings.network)
        self._minion = {**self._wanted.minion, **machine_config(opts, master)}
        self._host = Worker(opts, self._settings, "machine", _LOCAL)

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raise ``SaltInvocationError`` if a setting is wrong."""
        problems: list[str] = []
        _read(settings, problems)
        refuse("provider", problems)

    def publish(self, image: str) -> str:
        """Return the digest itself, since the layers are on the host already; raise unless their signature is valid."""
        return str(self._host("require", digest=image, trusted=sign.trusted(self._settings)))

    def launch(self, published: str, identity: Identity) -> str:
        """Start a machine; its ref is its minion id."""
        own = {"fleet": identity.fleet, "generation": identity.generation, "installation": identity.installation}
        order = {
            **own,
            **self._wanted.further,
            "minion_id": identity.minion_id,
            "image": published,
            "minion": {**self._minion, "id": identity.minion_id, "immutable_machine": own},
            "bridge": self._settings.network.bridge,
            "subnet": self._settings.network.subnet,
            "memory": self._wanted.memory,
            "cpus": self._wanted.cpus,
            "before": time.time() + _LAUNCH_WITHIN,
            "trusted": sign.trusted(self._settings),
        }
        return str(self._host("launch", order=order)["minion_id"])

    def unmet(self, image: str) -> Sequence[str]:
        """Return what an image wants of its host's kernel or its machines' capabilities, and what is not so there."""
        given = self._wanted.further.get("capabilities", ())
        found: Sequence[str] = self._host("unmet", image=image, capabilities=list(given))
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


def _read(given: Mapping[str, Any], problems: list[str]) -> _Settings:
    """Read the settings; add a line to ``problems`` for each that is wrong, in place of which its default counts."""
    present = {key: value for key, value in given.items() if value is not None or key not in _MAY_BE_EMPTY}
    section = Section("provider", present, problems)
    network_ = section.inside("network")
    further: dict[str, Any] = {
        "between": network_.take("between", reading.flag, False),
        "ports": network_.take("ports", _ports, None),
        "capabilities": section.take("capabilities", _capabilities, None),
    }
    network_.close()
    found = _Settings(
        memory=section.take("memory", _MEMORY, 1 << 30),
        cpus=section.take("cpus", _CPUS, None),
        minion=minion_settings(section.inside("minion")),
        further={name: value for name, value in further.items() if value},
    )
    section.close()
    return found


def _ports(value: object) -> list[int]:
    return [_PORT(port) for port in reading.sequence(value)]


def _capabilities(value: object) -> list[str]:
    found = list(reading.words(value))
    if wrong := next((name for name in found if name not in CAPABILITIES), None):
        raise ValueError(f"{quoted(wrong)} is no capability; write [CAP_NET_ADMIN] (capabilities(7) has all names)")
    return found
