"""A machine with a kernel of its own: start it in qemu, and run commands in it by the agent inside.

Nothing is stored here but, for one boot of this host, why it cannot use KVM.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import tail, this_boot, write
from saltext.immutable.machines import consoles
from saltext.immutable.machines.cgroup import Cgroup

PORT = "saltext.immutable"
"""Name of the serial port between this host and the agent."""
ADDRESS = "immutable.address"
"""Word of the kernel's command line with the machine's address, as ipconfig of klibc takes it."""
_ARCHITECTURE = "x86_64"
_PROGRAM, _PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
_SOCKET = "agent.sock"
_KVM = Path("/dev/kvm")
_SPEAKS = b"Linux version"
"""What a kernel says first."""
_SPEAKS_WITHIN = 20.0
"""Seconds until a kernel that runs by KVM has said it."""


@dataclass(frozen=True)
class VirtualMachine:
    """What a machine with a kernel of its own is made of, as paths of this host."""

    folder: str
    """Takes the socket of its agent."""
    kernel: str
    initrd: str
    options: str
    """The kernel's command line."""
    disks: tuple[str, ...]
    """Its disks in order (/dev/vda, /dev/vdb ...), raw. What is not written when this host fails is lost."""
    memory: int
    """Bytes."""
    cpus: int
    config: str = ""
    """A file with the minion config of a machine that boots from an exported disk, or ''."""


class _NoKernel(Exception):
    """No kernel ran."""


def require() -> None:
    """Raise CommandExecutionError where this host cannot start such machines."""
    if platform.machine() != _ARCHITECTURE:
        raise CommandExecutionError(
            f"machines with a kernel of their own are made for {_ARCHITECTURE} only, and this host is "
            f"{platform.machine()}; use another builder, or leave out bake_in: vm"
        )
    if shutil.which(_PROGRAM) is None:
        raise CommandExecutionError(f"{_PROGRAM} is not installed on this host; run apt-get install {_PACKAGE}")


@dataclass(frozen=True)
class Link:
    """How a machine is on the network."""

    name: str
    """Of its tap device."""
    hardware: str
    address: str
    netmask: str
    gateway: str
    """'': it reaches its own network only."""


def start(
    machine: VirtualMachine, cgroup: Cgroup, link: Link, console: Path, notes: Path, within: float = 600.0
) -> str:
    """Start a machine, wait for its agent, and return why it runs in emulation, or '' where it runs by KVM.

    ``notes``: the file that keeps why KVM cannot be used until this host boots again. Raises CommandExecutionError
    after ``within`` seconds.
    """
    why = _no_kvm(notes)
    if not why:
        try:
            _start(machine, cgroup, _command(machine, "kvm", link), console, within, by_kvm=True)
            return ""
        except _NoKernel as err:
            why = str(err)
            write(notes, f"{this_boot()} {why}")
            cgroup.kill()
            cgroup.remove()
    _start(machine, cgroup, _command(machine, "tcg,thread=multi", link), console, within)
    return why


def _no_kvm(notes: Path) -> str:
    if not _KVM.exists():
        return f"there is no {_KVM}"
    with suppress(FileNotFoundError):
        boot, _, why = notes.read_text().partition(" ")
        return why if boot == this_boot() else ""
    return ""


def _command(machine: VirtualMachine, accelerator: str, link: Link) -> list[str]:
    words = [_PROGRAM, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"]
    words += ["-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max", "-smp", str(machine.cpus)]
    words += ["-m", f"{machine.memory >> 20}", "-kernel", machine.kernel, "-initrd", machine.initrd]
    address = f"{ADDRESS}={link.address}::{link.gateway}:{link.netmask}::eth0:none"
    words += ["-append", f"{machine.options} {address}", "-serial", "stdio", "-device", "virtio-rng-pci"]
    for disk in machine.disks:
        words += ["-drive", f"file={_escaped(disk)},format=raw,if=virtio,cache=unsafe,discard=unmap"]
    if machine.config:
        words += ["-fw_cfg", f"name=opt/immutable/machine.conf,file={_escaped(machine.config)}"]
    words += ["-netdev", f"tap,id=net,ifname={link.name},script=no,downscript=no"]
    words += ["-device", f"virtio-net-pci,netdev=net,mac={link.hardware}", "-device", "virtio-serial"]
    words += ["-chardev", f"socket,id=agent,path={_SOCKET},server=on,wait=off"]
    words += ["-device", f"virtserialport,chardev=agent,name={PORT}"]
    return [*words, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"]


def _escaped(path: str) -> str:
    return path.replace(",", ",,")


def _start(
    machine: VirtualMachine, cgroup: Cgroup, command: Sequence[str], console: Path, within: float, by_kvm: bool = False
) -> None:
    with suppress(FileNotFoundError):
        Path(machine.folder, _SOCKET).unlink()
    console.unlink(missing_ok=True)
    started = [*cgroup.start_command(), *command]
    consoles.start(
        console, started, lambda output: _wait(machine, output, console, within, by_kvm), cwd=machine.folder
    )


def _wait(machine: VirtualMachine, output: IO[bytes], console: Path, within: float, by_kvm: bool) -> None:
    """Wait for the agent. ``output``: is at its end when all processes of the machine have ended."""
    began = time.monotonic()
    spoke, answers = False, False
    while not answers:
        ended = bool(select.select([output], [], [], 0.1)[0])
        spoke = spoke or _SPEAKS in _read(console)
        if by_kvm and not spoke and (ended or time.monotonic() > began + _SPEAKS_WITHIN):
            said = _read(console).decode(errors="replace").strip().splitlines()
            raise _NoKernel(f"{_KVM} starts no kernel here{': ' + said[-1][:200] if ended and said else ''}")
        if ended or time.monotonic() > began + within:
            text = tail(_read(console).decode(errors="replace"))
            raise CommandExecutionError(f"the machine did not boot; find the reason in its console:\n{text}")
        with suppress(OSError):
            answers = spoke and _speak(machine, {"command": ["true"]}, within=5.0) is not None


def _read(console: Path) -> bytes:
    try:
        return console.read_bytes()
    except FileNotFoundError:
        return b""


def run(
    machine: VirtualMachine,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a machine and wait for its end. Its exit code never raises.

    ``env``: its environment. ``stdin``: its input. Raises CommandExecutionError where the machine ends meanwhile.
    """
    try:
        found = _speak(machine, {"command": list(command), "env": dict(env or {}), "stdin": stdin})
    except OSError as err:
        raise CommandExecutionError(f"the machine ended while it ran {command[0]} ({err}); bake again") from err
    assert found is not None
    return subprocess.CompletedProcess(list(command), found["code"], found["stdout"], found["stderr"])


def _speak(machine: VirtualMachine, question: Mapping[str, Any], within: float | None = None) -> dict[str, Any] | None:
    """Return what the agent answers; None after ``within`` seconds. Raises OSError where nobody is there."""
    number = secrets.token_hex(8)
    with _connected(machine.folder) as stream:
        stream.settimeout(within)
        # A line that was cut off, by whoever spoke before, ends here.
        stream.sendall(b"\n" + json.dumps({**question, "number": number}).encode() + b"\n")
        with stream.makefile("rb") as lines, suppress(TimeoutError):
            for line in lines:
                with suppress(ValueError):
                    answer = dict(json.loads(line))
                    if answer.get("number") == number:
                        return answer
            raise OSError("its agent is gone")
    return None


@contextmanager
def _connected(folder: str) -> Any:
    """Give a connection to the agent. The path of a socket has 107 bytes at most, so it is reached by its folder."""
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(f"/proc/self/fd/{place}/{_SOCKET}")
            yield stream
    finally:
        os.close(place)
