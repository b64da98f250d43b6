"""Start a systemd-nspawn container, find its init, run commands in it. Nothing is stored here."""

from __future__ import annotations

import select
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from salt.exceptions import CommandExecutionError

from saltext.immutable import seccomp
from saltext.immutable.host import run, tail
from saltext.immutable.machines import consoles, network, network_settings, user_namespace
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec.model import Network

# Mounts and network are in namespaces that only the machine's own processes keep, so they cannot outlive it.
# Propagation "slave" lets this host unmount what it mounted. Descriptor 9 is the host's network namespace.
_OUTER = 'exec 9</proc/self/ns/net; exec unshare --mount --net --propagation slave -- /bin/sh -ec "$@"'
_INNER = """
link=$1 bridge=$2 address=$3 gateway=$4 route=$5 isolated=$6 mac=$7 root=$8 layers=$9 options=${10} shifted=${11}
settings=${12}
shift 12
# Before the link is made, for what it takes from the defaults of its network, and again for itself.
apply() {
    printf '%s\n' "$settings" | while read -r setting value; do
        test -n "$setting" || continue
        for file in /proc/sys/$setting; do test ! -w "$file" || printf '%s\n' "$value" >"$file" || :; done
    done
}
apply
ip link add host0 address "$mac" type veth peer name "$link" netns /proc/self/fd/9
nsenter --net=/proc/self/fd/9 ip link set "$link" master "$bridge" up
nsenter --net=/proc/self/fd/9 ip link set dev "$link" type bridge_slave isolated "$isolated"
ip link set lo up
ip addr add "$address" dev host0
ip link set host0 up
test -z "$route" || ip route add "$route" via "$gateway"
exec 9<&-
apply
if [ -n "$shifted" ]; then
    # This host keeps the network namespace, so that nobody in the machine changes addresses; what needs rights over
    # that namespace elsewhere is allowed to all here.
    echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
    echo "0 2147483647" >/proc/sys/net/ipv4/ping_group_range
    mount -t tmpfs -o mode=755 layers "$root"
    eval "$shifted"
    layers=$root
fi
cd "$layers"
mount -t overlay overlay -o "$options" "$root"
cd /
# At a reboot nspawn exits with 133 (systemd's EXIT_FORCE_RESTART): with --keep-unit we have to start it again.
while code=0; "$@" || code=$?; test "$code" = 133; do :; done 2>&1 | """ + consoles.KEEP
DROPPED = ("CAP_MKNOD", "CAP_AUDIT_CONTROL", "CAP_SYS_TTY_CONFIG")
"""Capabilities that a container would have and no server needs: device nodes are what a machine could read the disks of
its host by (see `cgroup.DEVICES`, too)."""
_NEVER_ENTERED = (
    *("audit_control", "audit_read", "block_suspend", "mac_admin", "mac_override", "sys_module", "sys_pacct"),
    *("sys_rawio", "sys_time", "syslog", "wake_alarm"),
)
"""Capabilities over the kernel of the host, its clock above all, that no command in a machine has, as no service there
has them."""
OWN = frozenset(
    f"CAP_{name}"
    for name in (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_OWNER", "KILL", "LEASE"),
        *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID"),
        *("SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE", "SYS_RESOURCE"),
    )
)
"""The capabilities that a container has without being given any: those of nspawn without `DROPPED`."""
CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN"),
        *("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE"),
        *("LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST"),
        *("NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT"),
        *("SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME"),
        *("SYS_TTY_CONFIG", "WAKE_ALARM"),
    )
)
"""All names of capabilities(7)."""
_MACHINE_IDS = uuid.UUID("8d3f6a1e-4c0b-5a39-9a53-2f6d2d6f6c4e")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""Environment of commands in a machine."""


@dataclass(frozen=True)
class Container:
    """What is needed to start a container."""

    name: str
    """Its machine name for nspawn."""
    launched: str
    """A text of its own, the same each time that it starts: its ``/etc/machine-id`` follows from it."""
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
    lower: Sequence[str] = ()
    """Short names of its layers."""
    ids: int = 0
    """The first user id of this host in its user namespace; 0: it has none."""
    between: bool = False
    """Whether it reaches other machines of its bridge."""
    capabilities: Sequence[str] = ()
    """Further capabilities that it has."""


def start(container: Container, within: float = 20.0) -> int:
    """Start a container and return the pid of its init. Raises CommandExecutionError after ``within`` seconds."""
    command = [*container.cgroup.start_command(), "/bin/sh", "-ec", _OUTER, "sh", _INNER, "sh", *_arguments(container)]
    # nspawn must not lock the layers, and its lock files would stay after a kill.
    env = {"SYSTEMD_NSPAWN_LOCK": "0"}
    return consoles.start(container.console, command, lambda output: _wait_started(container, output, within), env=env)


def _wait_started(container: Container, output: IO[bytes], within: float) -> int:
    """Wait for its init. ``output``: is at its end when all processes of the container have ended."""
    deadline = time.monotonic() + within
    while (leader := find_init(container.cgroup)) is None:
        ended = select.select([output], [], [], 0.01)[0]
        if ended or time.monotonic() > deadline:
            said = tail(container.console.read_text(errors="replace"))
            raise CommandExecutionError(
                f"machine {container.name} did not start; find the reason in its console:\n{said}"
            )
    return leader


def _arguments(container: Container) -> list[str]:
    net = container.network
    address = f"{container.address}/{network.prefix(net)}"
    connection = [container.link, net.bridge, address, network.gateway(net), container.route]
    connection += ["off" if container.between else "on", network.hardware_address(container.address)]
    mounted = [str(container.root), str(container.layers), container.options, _shift(container)]
    settings = "\n".join(network_settings.of_image(container.layers, container.lower))
    return [*connection, *mounted, settings, *_nspawn(container)]


def _shift(container: Container) -> str:
    """Return the shell line that mounts the layers with the machine's ids, or ''."""
    if not container.ids:
        return ""
    program = [sys.executable, "-I", "-m", user_namespace.__name__, str(container.ids)]
    return shlex.join([*program, str(container.layers), str(container.root), *container.lower])


def _nspawn(container: Container) -> list[str]:
    words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=read-only"]
    words += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    if container.ids:
        words += [f"--private-users={container.ids}:{user_namespace.IDS}", "--private-users-ownership=off"]
    else:
        words += ["--network-namespace-path=/proc/self/ns/net"]
    words += [f"--directory={container.root}", f"--machine={_machine_name(container.name)}"]
    words += [f"--uuid={uuid.uuid5(_MACHINE_IDS, container.launched)}"]
    dropped = [name for name in DROPPED if name not in container.capabilities]
    words += [f"--hostname={container.hostname}", f"--drop-capability={','.join(dropped)}"]
    words += [f"--capability={','.join(container.capabilities)}"] if container.capabilities else []
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
    return run(enter_command(init, cgroup, command, env or {}), stdin=stdin, check=False, first=seccomp.confine)


def enter_command(init: int, cgroup: Cgroup, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Return the command line that runs a command inside."""
    variables = [f"{key}={value}" for key, value in {**ENVIRONMENT, **env}.items()]
    bounded = ["setpriv", f"--bounding-set={','.join(f'-{name}' for name in _NEVER_ENTERED)}"]
    nsenter = ["nsenter", f"--target={init}", "--all", "--", "/usr/bin/env", "-i", *variables]
    return [*cgroup.join_command(), *bounded, *nsenter, *command]
