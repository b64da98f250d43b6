"""Machines of this host: launch, list, destroy.

What a machine is stands in its folder; whether it runs, the kernel knows.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host, tail, write
from saltext.immutable.machines import images, network, nspawn, overlay
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Network

_POWER_OFF = signal.SIGRTMIN + 4
"""systemd(1), section "Signals"."""
_END = 1 << 16
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[^\n\t\x20-\x7e\xa0-\U0010ffff]")
CONSOLES = 50
"""Consoles of ended machines that are kept."""


@dataclass(frozen=True)
class Machine:
    """One machine of this host, as it was ordered."""

    minion_id: str
    image: str
    """Full digest; '' for a machine that bakes."""
    lower: tuple[str, ...]
    """Short names of its layers, root first."""
    minion: Mapping[str, Any]
    """Minion config of this machine: id, master, ports, fleet and generation."""
    bridge: str
    subnet: str
    fleet: str = ""
    generation: int = 0
    installation: str = ""
    memory: int | None = None
    cpus: float | None = None
    read_only: bool = True
    writable: tuple[str, ...] = ()
    """Directories besides /var that it may write to where its root is read-only."""
    upper: str | None = None
    """Directory that takes the changes of a writable root (a bake)."""
    binds: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Further files to show inside, read-only: path inside -> path on this host."""
    boot: bool = True
    route: str = "default"
    """Where its packets may go beyond its own network: an address and prefix, or '' for nowhere."""
    tag: str = ""
    """Of the host's directory that it belongs to."""
    address: str = ""
    link: str = ""
    born: float = 0.0
    started: bool = False
    """False until its init was seen for the first time."""

    @property
    def cgroup(self) -> Cgroup:
        """The cgroup that its processes are in."""
        return Cgroup(self.name, self.memory, self.cpus)

    @property
    def name(self) -> str:
        """What the kernel and nspawn know it by."""
        return f"{self.tag}-{self.minion_id}"

    @property
    def network(self) -> Network:
        """The network that it is on."""
        return Network(self.bridge, self.subnet)

    @property
    def running(self) -> bool:
        """Whether any process of it lives."""
        return self.cgroup.populated

    def power_off(self) -> None:
        """Ask its init to shut down in order. Not by systemctl: logind takes the order and may forget it."""
        init = nspawn.find_init(self.cgroup)
        if init is not None:
            os.kill(init, _POWER_OFF)

    def run(self, command: Sequence[str], **how: Any) -> CompletedProcess[str]:
        """Run a command inside it, to its end; never raises for its exit code."""
        init = nspawn.find_init(self.cgroup)
        if init is None:
            raise CommandExecutionError(f"{self.minion_id} is not running")
        return nspawn.enter(init, self.cgroup, command, **how)


def launch(host: Host, order: Machine) -> Machine:
    """Start the machine that was ordered; one that runs under this id already is left alone."""
    overlay.refuse_unstackable(host.root)
    with host.lock(_turn(order.minion_id)):
        there = find(host, order.minion_id)
        if there is not None and there.running:
            return there
        if there is not None:
            _destroy(host, there)
        return _launch(host, order)


def _turn(minion_id: str) -> str:
    """Return the lock of a machine. There are 16: a lock file must not be removed while somebody may wait for it."""
    return f"machine-{zlib.crc32(minion_id.encode()) % 16:x}"


def _launch(host: Host, order: Machine) -> Machine:
    try:
        machine = _record(host, order)
        nspawn.start(_container(host, machine))
        return _write(host, replace(machine, started=True))
    except BaseException:
        # Ctrl-C may have come when the record was just written.
        if (recorded := find(host, order.minion_id)) is not None:
            _destroy(host, recorded)
        raise


def _record(host: Host, order: Machine) -> Machine:
    """Give the machine its address and write down that it exists, before anything of it does."""
    with host.lock("network"):
        network.up(order.network)
        address = network.free_address(order.network, [each.address for each in machines(host)])
        link = f"im{secrets.token_hex(5)}"  # random: a link of the same name may still be going away
        with host.lock("layers"):  # from here on the record holds them
            images.require_links(host, order.lower)
            return _write(host, replace(order, tag=host.tag, address=address, link=link, born=time.time()))


def _write(host: Host, machine: Machine) -> Machine:
    folder = _folder(host, machine.minion_id)
    folder.mkdir(exist_ok=True)
    write(folder / "machine.json", json.dumps(asdict(machine)))
    return machine


def _folder(host: Host, minion_id: str) -> Path:
    """Return where a machine's files are; an id that is no file name must not lead anywhere else."""
    try:
        return host.machines / reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err


def alive(host: Host, machine: Machine) -> bool:
    """Tell whether a machine runs, or is being started at this moment."""
    return machine.running or (not machine.started and host.is_locked(_turn(machine.minion_id)))


def _container(host: Host, machine: Machine) -> nspawn.Container:
    folder = host.machines / machine.minion_id
    upper = Path(machine.upper) if machine.upper else None if machine.read_only else folder / "upper"
    work = upper.with_name("work") if upper else None
    changed = _changed(folder, machine) if machine.read_only else {}
    for inner in filter(None, (folder / "root", upper, work, *changed.values())):
        inner.mkdir(exist_ok=True)
    return nspawn.Container(
        name=machine.name,
        hostname=machine.minion_id.split(".")[0][:63],
        cgroup=machine.cgroup,
        root=folder / "root",
        layers=host.l,
        # A bake that was cut off begins anew, and one that ends well writes all to the disk with its commit.
        options=overlay.options(machine.lower, upper, work, passing=machine.upper is not None),
        link=machine.link,
        address=machine.address,
        network=machine.network,
        console=folder / "console.log",
        writable=not machine.read_only,
        changed=changed,
        files=_files(host, machine),
        binds={target: Path(source) for target, source in machine.binds.items()},
        boot=machine.boot,
        route=machine.route,
    )


def _changed(folder: Path, machine: Machine) -> dict[str, Path]:
    """Return where changes go when the root is read-only; what is in /var is writable with it."""
    others = [path for path in machine.writable if not f"{path}/".startswith("/var/")]
    return {"/var": folder / "var"} | {path: folder / f"writable-{number}" for number, path in enumerate(others)}


def _files(host: Host, machine: Machine) -> dict[str, Path]:
    """Write what only this machine has, and return where it shall be seen.

    A bake gets its identity alone: what its states write to /etc/hosts belongs to the image.
    """
    folder = host.machines / machine.minion_id
    texts = {str(MACHINE_PATH): json.dumps(machine.minion, indent=1)}
    if machine.upper is None:
        own = f"{machine.address} {machine.minion_id} {machine.minion_id.split('.')[0]}\n"
        texts["/etc/hosts"] = _text(host, machine, "/etc/hosts") + own
        if not _text(host, machine, "/etc/resolv.conf"):
            texts["/etc/resolv.conf"] = network.resolv_conf()
    for target, text in texts.items():
        write(folder / Path(target).name, text)
    given = {target: Path(source) for target, source in machine.files.items()}
    return {target: folder / Path(target).name for target in texts} | given


def _text(host: Host, machine: Machine, path: str) -> str:
    file = overlay.top_file(host.l, machine.lower, path)
    return file.read_text(errors="replace") if file else ""


def machines(host: Host) -> list[Machine]:
    """Return every machine that was ordered on this host and is not destroyed, running or not."""
    if not host.machines.is_dir():
        return []
    found = (find(host, folder.name) for folder in sorted(host.machines.iterdir()))
    return [machine for machine in found if machine is not None]


def find(host: Host, minion_id: str) -> Machine | None:
    """Return one machine, or None if there is none of that id."""
    file = _folder(host, minion_id) / "machine.json"
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return Machine(**{**data, **{name: tuple(data.get(name, ())) for name in ("lower", "writable")}})


def destroy(host: Host, minion_id: str) -> bool:
    """End a machine and remove all of it but its console log; return False if there was none."""
    with host.lock(_turn(minion_id)):
        machine = find(host, minion_id)
        if machine is None:
            host.discard(_folder(host, minion_id))
        else:
            _destroy(host, machine)
    return machine is not None


def _destroy(host: Host, machine: Machine) -> None:
    machine.cgroup.kill()
    machine.cgroup.remove()
    nspawn.forget(machine.name)
    with host.lock("network"):
        network.unplug(machine.link)
        others = (each for each in machines(host) if each.minion_id != machine.minion_id)
        if not any(each.bridge == machine.bridge for each in others):
            network.down(machine.network)
        _keep_console(host, machine)
    host.discard(host.machines / machine.minion_id)


def _keep_console(host: Host, machine: Machine) -> None:
    log = host.machines / machine.minion_id / "console.log"
    if log.exists():
        log.rename(host.consoles / f"{machine.minion_id}.log")
    for old in sorted(host.consoles.iterdir(), key=lambda file: file.stat().st_mtime)[:-CONSOLES]:
        old.unlink()


def console(host: Host, minion_id: str, lines: int = 60) -> str:
    """Return the tail of what a machine wrote to its console, also when it is gone; '' if nothing is known."""
    for file in (_folder(host, minion_id) / "console.log", host.consoles / f"{minion_id}.log"):
        if file.exists():
            return tail(_plain(file), lines)
    return ""


def _plain(file: Path) -> str:
    """Return the end of a console as text that a terminal only prints."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _END))
        text = stream.read().decode(errors="replace")
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


@contextmanager
def temporary(host: Host, order: Machine) -> Iterator[Machine]:
    """Give a machine that goes away afterwards; it is undone also where Ctrl-C comes between launch and return."""
    try:
        yield launch(host, order)
    finally:
        destroy(host, order.minion_id)


def wait_booted(machine: Machine, within: float = 120.0) -> None:
    """Wait until systemd has started what it wanted to start; failed units are no error."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        left = f"{deadline - time.monotonic():.1f}"
        state = machine.run(["timeout", left, "systemctl", "is-system-running", "--wait"]).stdout.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.05)
    raise CommandExecutionError(f"{machine.minion_id} did not boot within {within:.0f} s (systemd says {state!r})")
