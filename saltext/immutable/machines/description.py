"""The description of a machine of this host: what it runs on, how it is reached, and how one speaks with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import CompletedProcess
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.machines import nspawn, qemu
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec.model import Network

_POWER_OFF = signal.SIGRTMIN + 4  # shuts systemd down: systemd(1), section "Signals"


@dataclass(frozen=True)
class Machine:
    """The description of a machine of this host."""

    minion_id: str
    image: str
    """Full digest; '' for a machine that bakes."""
    lower: tuple[str, ...]
    """Short names of its layers, root first."""
    minion: Mapping[str, Any]
    """Minion config of this machine: id, master, ports, fleet, generation."""
    bridge: str
    subnet: str
    fleet: str = ""
    generation: int = 0
    installation: str = ""
    memory: int | None = None
    """Limit in bytes."""
    cpus: float | None = None
    read_only: bool = True
    writable: tuple[str, ...] = ()
    """Writable directories besides /var, where the root is read-only."""
    upper: str | None = None
    """Directory for the changes to a writable root (of a bake)."""
    binds: Mapping[str, str] = field(default_factory=dict)
    """Directories of this host to mount, writable: path inside -> path on this host."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files of this host to mount, read-only: path inside -> path on this host."""
    boot: bool = True
    """False: without an init, for single commands."""
    route: str = "default"
    """Destination of a route beyond its own network: ``default``, an address with prefix, or '' for none."""
    tag: str = ""
    """`Host.tag` of the directory that it belongs to."""
    address: str = ""
    link: str = ""
    """Name of the host's end of its network link."""
    born: float = 0.0
    """Epoch seconds of its launch."""
    ports: tuple[int, ...] | None = None
    """TCP ports of this host that it may reach; None: all of them."""
    between: bool = False
    """Whether it reaches other machines of its bridge, and they it."""
    capabilities: tuple[str, ...] = ()
    """Capabilities that it has besides those of every machine. They make it share the user ids of this host."""
    ids: int = 0
    """The first of its user ids on this host: root in it is that user here. 0: root in it is root here."""
    shares_ids: str = ""
    """Why it shares the user ids of this host, where it does."""
    started: bool = False
    """False until its init has been seen."""
    since: float = 0.0
    """Epoch seconds of when it was started again; 0: it never was."""
    boot_id: str = ""
    """The boot of this host in which it was started last."""
    vm: qemu.VirtualMachine | None = None
    """What it runs with a kernel of its own, if it does."""
    emulated: str = ""
    """Why its processor is emulated, if it is."""
    trusted: tuple[str, ...] = ()
    """The public keys (base64) of which one must have signed its image, if it is started again."""

    @property
    def cgroup(self) -> Cgroup:
        """The cgroup of its processes."""
        return Cgroup(self.name, self.memory, self.cpus, closed=True, kvm=self.vm is not None)

    @property
    def name(self) -> str:
        """Its name for the kernel and for nspawn."""
        return f"{self.tag}-{self.minion_id}"

    @property
    def network(self) -> Network:
        """The network that it is on."""
        return Network(self.bridge, self.subnet)

    @property
    def running(self) -> bool:
        """Whether any of its processes lives."""
        return self.cgroup.populated

    def power_off(self) -> None:
        """Ask its init to shut down. A signal, because logind may lose the request of systemctl."""
        if self.vm is not None:
            self.run(["/bin/sh", "-c", f"kill -{_POWER_OFF:d} 1"])
            return
        init = nspawn.find_init(self.cgroup)
        if init is not None:
            os.kill(init, _POWER_OFF)

    def run(self, command: Sequence[str], **how: Any) -> CompletedProcess[str]:
        """Run a command inside and wait for its end. Its exit code never raises.

        ``how``: see `nspawn.enter`. Raises CommandExecutionError where the machine does not run.
        """
        if self.vm is not None and self.running:
            how["env"] = {**nspawn.ENVIRONMENT, **(how.get("env") or {})}
            return qemu.run(self.vm, command, **how)
        init = nspawn.find_init(self.cgroup)
        if init is None:
            raise CommandExecutionError(f"machine {self.minion_id} is not running; see machine.console for the reason")
        return nspawn.enter(init, self.cgroup, command, **how)
