"""A machine with a kernel of its own: start it in qemu, and run commands in it by the agent inside.

Nothing is stored here but, for one boot of this host, why it cannot use KVM.
"""

from __future__ import annotations

import errno
import fcntl
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
EMULATED = "in emulation, which takes about ten times as long: {}"
"""What is reported of a machine that does not run by KVM, with the reason."""
_ARCHITECTURE = "x86_64"
_PROGRAM, _PACKAGE = "qemu-system-x86_64", "qemu-system-x86"
_SOCKET = "agent.sock"
_KVM = Path("/dev/kvm")
_SPEAKS = b"Linux version"
"""What a kernel says first."""
_SPEAKS_WITHIN = 20.0
"""Seconds until a kernel that runs by KVM has said it."""
_PASSES = [os.strerror(number) for number in (errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EINTR)]
"""What qemu says of KVM where another moment may be better."""
_SILENT_FOR = 300.0
"""Seconds without a sign of the agent after which a machine hangs: it gives one every few seconds."""
_TURN_WITHIN = 10.0
"""Seconds to wait while another process runs a command."""


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
    """No kernel ran by KVM."""

    def __init__(self, said: str, lasts: bool) -> None:
        super().__init__(f"{_KVM} starts no kernel here{': ' if said else ''}{said}")
        self.lasts = lasts
        """Whether that is so until this host boots again, as far as one can tell."""


class NotBooted(CommandExecutionError):  # type: ignore[misc]
    """A kernel ran, but the machine did not get so far that its agent answers."""


class Busy(CommandExecutionError):  # type: ignore[misc]
    """Another process runs a command in the machine."""


def require() -> None:
    """Raise CommandExecutionError where this host cannot start such machines."""
    if platform.machine() != _ARCHITECTURE:
        raise CommandExecutionError(
            f"machines with a kernel of their own are made for {_ARCHITECTURE} only, and this host is "
            f"{platform.machine()}; use another builder, or leave out bake_in: vm and tests: vm"
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

    ``notes``: the file that keeps why KVM cannot be used until this host boots again. Raises NotBooted after ``within``
    seconds, and CommandExecutionError where no kernel starts.
    """
    why, lasts = _no_kvm(notes), False
    if not why:
        try:
            _start(machine, cgroup, _command(machine, "kvm", link), console, within, by_kvm=True)
            return ""
        except _NoKernel as err:
            why, lasts = str(err), err.lasts
            cgroup.kill()
            cgroup.remove()
    _start(machine, cgroup, _command(machine, "tcg,thread=multi", link), console, within)
    if lasts:  # the same machine runs without KVM, so it was not the machine
        write(notes, f"{this_boot()} {why}")
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
        # Where this host's disk is full, qemu stops the machine by default, and so no write of it is lost unseen.
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
    started = [*cgroup.start_command(), "/bin/sh", "-c", f'"$@" 2>&1 | {consoles.KEEP}', "sh", *command]
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
            said = tail(_read(console).decode(errors="replace").strip(), 1)[:200] if ended else ""
            raise _NoKernel(said, not ended or ("kvm" in said.lower() and not any(word in said for word in _PASSES)))
        if ended or time.monotonic() > began + within:
            text = tail(_read(console).decode(errors="replace"))
            if spoke:
                raise NotBooted(f"the machine did not boot; find the reason in its console:\n{text}")
            raise CommandExecutionError(f"{_PROGRAM} started no kernel; find the reason in what it says:\n{text}")
        with suppress(OSError, Busy):
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

    ``env``: its environment. ``stdin``: its input. Raises CommandExecutionError where the machine ends or hangs
    meanwhile, and Busy where another process runs a command.
    """
    try:
        found = _speak(machine, {"command": list(command), "env": dict(env or {}), "stdin": stdin}, _SILENT_FOR)
    except OSError as err:
        raise CommandExecutionError(
            f"the machine ended while it ran a command ({err}); see machine.console for the reason: its kernel "
            "panicked, or a state shut it down"
        ) from err
    if found is None:
        raise CommandExecutionError(
            f"the machine gave no sign for {_SILENT_FOR:.0f} s while it ran a command; free some space on this host if "
            "its disk is full, give the machine more memory (vm:memory) if it has too little, else see machine.console"
        )
    return subprocess.CompletedProcess(list(command), found["code"], found["stdout"], found["stderr"])


def _speak(machine: VirtualMachine, question: Mapping[str, Any], within: float) -> dict[str, Any] | None:
    """Return what the agent answers; None after ``within`` seconds without a sign. Raises OSError where it is gone."""
    number, until = secrets.token_hex(8), time.monotonic() + within
    with _connected(machine.folder, within) as stream:
        # A line that was cut off, by whoever spoke before, ends here.
        stream.sendall(b"\n" + json.dumps({**question, "number": number}).encode() + b"\n")
        with stream.makefile("rb") as lines, suppress(TimeoutError):
            for line in lines:
                answer = _parse(line)
                if answer.get("number") == number and "code" in answer:
                    return answer
                if answer.get("number") == number:
                    until = time.monotonic() + within
                elif time.monotonic() > until:  # it runs the command of a process that is gone
                    return None
            raise OSError("its agent is gone")
    return None


def _parse(line: bytes) -> dict[str, Any]:
    """Return a line of the agent; {} for what is none, as half of one."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _connected(folder: str, within: float) -> Any:
    """Give a connection to the agent, with which one process at a time speaks.

    The path of a socket has 107 bytes at most, so it is reached by its folder.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _take_turn(place)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(within)
            stream.connect(f"/proc/self/fd/{place}/{_SOCKET}")
            yield stream
    finally:
        os.close(place)


def _take_turn(place: int) -> None:
    """Lock the folder of a machine. The kernel unlocks it when this process closes it or dies."""
    until = time.monotonic() + _TURN_WITHIN
    while True:
        try:
            return fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            if time.monotonic() > until:
                raise Busy("the machine runs another command; repeat this when that has ended") from err
        time.sleep(0.05)
