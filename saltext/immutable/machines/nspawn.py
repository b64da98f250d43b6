"""Start a systemd-nspawn container, find its init, run commands in it. Nothing is stored here."""

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

# Mounts and network are in namespaces that only the machine's own processes keep, so they cannot outlive it.
# Propagation "slave" lets this host unmount what it mounted. Descriptor 9 is the host's network namespace.
_OUTER = 'exec 9</proc/self/ns/net; exec unshare --mount --net --propagation slave -- /bin/sh -ec "$@"'
_INNER = """
link=$1 bridge=$2 address=$3 gateway=$4 route=$5 root=$6 layers=$7 options=$8
shift 8
ip link add host0 type veth peer name "$link" netns /proc/self/fd/9
nsenter --net=/proc/self/fd/9 ip link set "$link" master "$bridge" up
nsenter --net=/proc/self/fd/9 ip link set dev "$link" type bridge_slave isolated on
ip link set lo up
ip addr add "$address" dev host0
ip link set host0 up
test -z "$route" || ip route add "$route" via "$gateway"
exec 9<&-
cd "$layers"
mount -t overlay overlay -o "$options" "$root"
cd /
# Only the first 32 MB of the console are kept: a machine that logs for months must not fill this host's disk.
# At a reboot nspawn exits with 133 (systemd's EXIT_FORCE_RESTART): with --keep-unit we have to start it again.
while code=0; "$@" || code=$?; test "$code" = 133; do :; done 2>&1 |
    { dd bs=4096 count=8192 status=none; exec cat >/dev/null; }
"""
DROPPED = ("CAP_MKNOD", "CAP_AUDIT_CONTROL", "CAP_SYS_TTY_CONFIG")
"""Capabilities that a container would have and no server needs: device nodes are what a machine could read the disks of
its host by (see `cgroup.DEVICES`, too)."""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True)
class Container:
    """What is needed to start a container."""

    name: str
    """Its machine name for nspawn."""
    hostname: str
    cgroup: Cgroup
    root: Path
    """An empty directory to mount the layers on."""
    layers: Path
    """The directory in which ``options`` finds the layers by their short names."""
    options: str
    """Options of the overlay mount."""
    link: str
    """Name of the host's end of its network link."""
    address: str
    network: Network
    console: Path
    writable: bool = False
    overlays: Mapping[str, Path] = field(default_factory=dict)
    """Writable directories of a read-only root: directory inside -> directory of the host for the changes."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of the host to mount, read-only: path inside -> path on the host."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Directories of the host to mount, writable: path inside -> path on the host."""
    boot: bool = True
    """False: without an init, for single commands."""
    route: str = "default"
    """Destination of a route by the gateway, or '' for none."""


def start(container: Container, within: float = 20.0) -> int:
    """Start a container and return the pid of its init. Raises CommandExecutionError after ``within`` seconds."""
    command = [*container.cgroup.start_command(), "/bin/sh", "-ec", _OUTER, "sh", _INNER, "sh", *_arguments(container)]
    with container.console.open("ab") as console:
        process = subprocess.Popen(
            command,
            # nspawn must not lock the layers, and its lock files would stay after a kill.
            env={**os.environ, "SYSTEMD_NSPAWN_LOCK": "0"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    try:
        return _wait_started(container, process, within)
    except BaseException:
        # It may not have joined its cgroup yet, in which a later clean-up would find it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _wait_started(container: Container, process: subprocess.Popen[bytes], within: float) -> int:
    deadline = time.monotonic() + within
    while (leader := find_init(container.cgroup)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            output = tail(container.console.read_text(errors="replace"))
            raise CommandExecutionError(f"machine {container.name} did not start; its console:\n{output}")
        time.sleep(0.01)
    return leader


def _arguments(container: Container) -> list[str]:
    net = container.network
    address = f"{container.address}/{network.prefix(net)}"
    connection = [container.link, net.bridge, address, network.gateway(net), container.route]
    return [*connection, str(container.root), str(container.layers), container.options, *_nspawn(container)]


def _nspawn(container: Container) -> list[str]:
    words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=read-only"]
    words += ["--network-namespace-path=/proc/self/ns/net", "--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    words += [f"--directory={container.root}", f"--machine={_machine_name(container.name)}"]
    words += [f"--hostname={container.hostname}", f"--drop-capability={','.join(DROPPED)}"]
    words += [] if container.writable else ["--read-only"]
    words += [f"--overlay=+{path}:{changes}:{path}" for path, changes in container.overlays.items()]
    words += [f"--bind-ro={source}:{target}" for target, source in container.files.items()]
    words += [f"--bind={source}:{target}" for target, source in container.binds.items()]
    if not container.boot:
        return [*words, "--as-pid2", "/bin/sleep", "infinity"]
    # The journal on the console, so that a failed boot can be read there: only the console outlives the machine.
    return [*words, "--boot", "systemd.journald.forward_to_console=1", "systemd.journald.max_level_console=info"]


def remove_runtime_files(name: str) -> None:
    """Remove what nspawn leaves in /run when it is killed."""
    with suppress(FileNotFoundError):
        Path("/run/systemd/nspawn/propagate", _machine_name(name)).rmdir()


def _machine_name(name: str) -> str:
    """Return a valid machine name for nspawn: at most 64 characters of a host name."""
    return name.replace("_", "-")[:64].strip(".-")


def find_init(cgroup: Cgroup) -> int | None:
    """Return the pid of the machine's init on this host, or None."""
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
    """Run a command inside and wait for its end: in the machine's cgroup and namespaces. Its exit code never raises.

    ``env``: its environment, besides PATH, HOME and LANG. ``stdin``: its input.
    """
    return run(enter_command(init, cgroup, command, env or {}), stdin=stdin, check=False)


def enter_command(init: int, cgroup: Cgroup, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return the command line that runs a command inside."""
    variables = [f"{key}={value}" for key, value in {**_ENVIRONMENT, **env}.items()]
    nsenter = ["nsenter", f"--target={init}", "--all", "--", "/usr/bin/env", "-i", *variables]
    return [*cgroup.join_command(), *nsenter, *command]
