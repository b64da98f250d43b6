"""Start one systemd-nspawn container, find its init, run commands in it. Nothing is remembered here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import run, tail
from saltext.immutable.machines import network
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec.model import Network

# Mounts and network live in namespaces that only the machine's own processes hold: they cannot outlive it.
# Other machines' mounts are not kept busy (propagation slave). Descriptor 9 is the host's network namespace.
_OUTER = 'exec 9</proc/self/ns/net; exec unshare --mount --net --propagation slave -- /bin/sh -ec "$@"'
_INNER = """
link=$1 bridge=$2 address=$3 gateway=$4 route=$5 root=$6 layers=$7 options=$8
shift 8
ip link add host0 type veth peer name "$link" netns /proc/self/fd/9
nsenter --net=/proc/self/fd/9 ip link set "$link" master "$bridge" up
ip link set lo up
ip addr add "$address" dev host0
ip link set host0 up
test -z "$route" || ip route add "$route" via "$gateway"
exec 9<&-
cd "$layers"
mount -t overlay overlay -o "$options" "$root"
cd /
# The beginning of the console is kept: a machine that logs for months must not fill this host's disk.
# A machine that reboots ends with 133 (systemd's EXIT_FORCE_RESTART): under --keep-unit we are to start it again.
while code=0; "$@" || code=$?; test "$code" = 133; do :; done 2>&1 |
    { dd bs=4096 count=8192 status=none; exec cat >/dev/null; }
"""
_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Container:
    """All that it takes to start one."""

    name: str
    """Its machine name for nspawn."""
    hostname: str
    cgroup: Cgroup
    root: Path
    """An empty directory to mount the layers on."""
    layers: Path
    """Where ``options`` finds the layers by their short names."""
    options: str
    link: str
    """Name of the host's end of its network link."""
    address: str
    network: Network
    console: Path
    writable: bool = False
    changed: Mapping[str, Path] = field(default_factory=dict)
    """Where changes go when the root is read-only: directory inside -> directory of the host."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of the host to show at a path of the container, read-only."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Directories of the host to show at a path of the container, writable."""
    boot: bool = True
    """False: no init; nspawn's stub waits for commands."""
    route: str = "default"
    """Where its packets may go by the gateway; '' for nowhere."""


def start(container: Container, within: float = 20.0) -> int:
    """Start it and return the pid of its init."""
    command = [*container.cgroup.starter(), "/bin/sh", "-ec", _OUTER, "sh", _INNER, "sh", *_arguments(container)]
    with container.console.open("ab") as console:
        process = subprocess.Popen(
            command,
            # The layers are not nspawn's to lock, and its lock files would stay when it is killed.
            env={**os.environ, "SYSTEMD_NSPAWN_LOCK": "0"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    try:
        return _started(container, process, within)
    except BaseException:
        # Perhaps it did not join its cgroup yet, where it would be found: it must not do so later.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _started(container: Container, process: subprocess.Popen[bytes], within: float) -> int:
    deadline = time.monotonic() + within
    while (leader := find_init(container.cgroup)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            said = tail(container.console.read_text(errors="replace"))
            raise CommandExecutionError(f"{container.name} did not start:\n{said}")
        time.sleep(0.01)
    return leader


def _arguments(container: Container) -> list[str]:
    net = container.network
    address = f"{container.address}/{network.prefix(net)}"
    place = [container.link, net.bridge, address, network.gateway(net), container.route]
    return [*place, str(container.root), str(container.layers), container.options, *_nspawn(container)]


def _nspawn(container: Container) -> list[str]:
    words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=read-only"]
    words += ["--network-namespace-path=/proc/self/ns/net", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    words += [f"--directory={container.root}", f"--machine={_machine_name(container.name)}"]
    words += [f"--hostname={container.hostname}"]
    words += [] if container.writable else ["--read-only"]
    words += [f"--overlay=+{path}:{changes}:{path}" for path, changes in container.changed.items()]
    words += [f"--bind-ro={source}:{target}" for target, source in container.files.items()]
    words += [f"--bind={source}:{target}" for target, source in container.binds.items()]
    if not container.boot:
        return [*words, "--as-pid2", "/bin/sleep", "infinity"]
    # A boot that fails must be readable on the console: it is all that is left of the machine.
    return [*words, "--boot", "systemd.journald.forward_to_console=1", "systemd.journald.max_level_console=info"]


def forget(name: str) -> None:
    """Remove what nspawn leaves in /run when it is killed."""
    with suppress(FileNotFoundError):
        Path("/run/systemd/nspawn/propagate", _machine_name(name)).rmdir()


def _machine_name(name: str) -> str:
    """nspawn takes at most 64 characters of a host name."""
    return name.replace("_", "-")[:64].strip(".-")


def find_init(cgroup: Cgroup) -> int | None:
    """Return the pid of the machine's process 1 as this host counts, or None while there is none."""
    return next((pid for pid in cgroup.each_pid() if _is_init(pid)), None)


def _is_init(pid: int) -> bool:
    try:
        status = Path("/proc", str(pid), "status").read_text()
        link = Path("/proc", str(pid), "root").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) > 1 and ids[-1] == "1" and link == Path("/")


def enter(
    init: int, cgroup: Cgroup, command: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command inside, to its end: in the machine's cgroup and all its namespaces. Its exit code never raises."""
    return run(entering(init, cgroup, command, env or {}), stdin=stdin, check=False)


def entering(init: int, cgroup: Cgroup, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return the words that run a command inside."""
    inner = [f"{key}={value}" for key, value in {**_PATH, **env}.items()]
    return [*cgroup.joiner(), "nsenter", f"--target={init}", "--all", "--", "/usr/bin/env", "-i", *inner, *command]
