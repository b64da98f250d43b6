"""The cgroup of each machine, in every hierarchy of this host (v1, v2 or both).

Machines in one cgroup would share the cgroups of their services, and could not stop them. Resource limits are set here
as well. Where systemd is pid 1 it owns the tree; there a scope of systemd (`systemd-run --scope`) is used instead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import systemd_here
from saltext.immutable.machines import device_rules

SLICE = "immutable"
DEVICES = (
    *("c 0:0 m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm"),
    *("c 5:2 rwm", "c 10:200 rwm", "c 10:229 rwm", "c 136:* rwm"),
)
"""The devices of a machine, as cgroup v1 writes them: whiteouts of overlayfs, null, zero, full, random, urandom, tty,
console, ptmx, tun, fuse, pseudo-terminals. None of them is a disk."""
_DEVICES_OF_SCOPE = ("DevicePolicy=closed", "DeviceAllow=/dev/net/tun rwm", "DeviceAllow=char-pts rw")
"""The same for systemd, as its own unit for containers has it."""
_KVM, _KVM_OF_SCOPE = "c 10:232 rw", "DeviceAllow=/dev/kvm rw"
_INSIDE = "machine"
"""The group below that of the devices: root in a machine may change the rules of its own group, not of one above."""
_JOIN = """
for group in "$@"; do
    shift
    [ "$group" = -- ] && break
    echo $$ > "$group/cgroup.procs"
done
exec "$@"
"""


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy. ``unified``: v2."""

    mount: Path
    unified: bool
    controllers: frozenset[str]


def hierarchies() -> list[Hierarchy]:
    """Return the cgroup hierarchies that are mounted. Raises CommandExecutionError where there are none."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.append(Hierarchy(Path(mount), True, _unified(Path(mount))))
        elif kind == "cgroup":
            found.append(Hierarchy(Path(mount), False, frozenset(options.split(","))))
    if not found:
        raise CommandExecutionError("no cgroup hierarchy is mounted, and machines need one; mount it at /sys/fs/cgroup")
    return found


def _unified(mount: Path) -> frozenset[str]:
    try:
        return frozenset((mount / "cgroup.controllers").read_text().split())
    except FileNotFoundError:
        return frozenset()


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one machine, by name. All state is in the kernel."""

    name: str
    memory: int | None = None
    """Limit in bytes."""
    cpus: float | None = None
    closed: bool = False
    """Its processes get no other devices than DEVICES, whatever device nodes they make or find."""
    kvm: bool = False
    """They get that of KVM as well."""

    def folders(self) -> list[Path]:
        """Return the folder of this cgroup in each hierarchy, whether or not it exists."""
        path = Path(f"{SLICE}.slice/{self.unit}.scope") if systemd_here() else Path(SLICE, self.name)
        return [tree.mount / path for tree in hierarchies()]

    @property
    def unit(self) -> str:
        """The name of the scope where systemd is pid 1."""
        return f"{SLICE}-{self.name}"

    def start_command(self) -> list[str]:
        """Create the cgroup and return the command prefix that starts a command in it."""
        if systemd_here():
            limits = [f"--property=MemoryMax={self.memory}"] if self.memory else []
            limits += [f"--property=CPUQuota={self.cpus * 100:.0f}%"] if self.cpus else []
            allowed = [*_DEVICES_OF_SCOPE, *([_KVM_OF_SCOPE] if self.kvm else [])] if self.closed else []
            limits += [f"--property={each}" for each in allowed]
            scope = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={self.unit}"]
            return [*scope, f"--slice={SLICE}", "--property=Delegate=yes", *limits, "--"]
        trees = list(zip(hierarchies(), self.folders(), strict=True))
        devices = [*DEVICES, *([_KVM] if self.kvm else [])]
        files = any("devices" in tree.controllers for tree, _ in trees)
        for tree, folder in trees:
            _create(tree, folder)
            self._limit(tree, folder)
            if self._has_inside(tree):
                _close(folder, devices)
            elif self.closed and tree.unified and not files:
                device_rules.limit(folder, devices)
        return _prefix([folder / _INSIDE if self._has_inside(tree) else folder for tree, folder in trees])

    def join_command(self) -> list[str]:
        """Return the command prefix that runs a command in this cgroup, which must exist."""
        # Of the v1 hierarchies, a scope of systemd is only in those whose limits it has.
        pairs = zip(hierarchies(), self.folders(), strict=True)
        existing = [(tree, folder) for tree, folder in pairs if folder.is_dir()]
        return _prefix([self._joined(tree, folder) for tree, folder in existing])

    def _joined(self, tree: Hierarchy, folder: Path) -> Path:
        """Return the group that a process joins later."""
        if tree.unified:
            return _leaf(folder)
        return folder / _INSIDE if self._has_inside(tree) and (folder / _INSIDE).is_dir() else folder

    def _has_inside(self, tree: Hierarchy) -> bool:
        return self.closed and "devices" in tree.controllers and not tree.unified

    def _limit(self, tree: Hierarchy, folder: Path) -> None:
        if self.memory and "memory" in tree.controllers:
            file = "memory.max" if tree.unified else "memory.limit_in_bytes"
            (folder / file).write_text(str(self.memory))
        if self.cpus and "cpu" in tree.controllers:
            quota = int(self.cpus * 100_000)
            if tree.unified:
                (folder / "cpu.max").write_text(f"{quota} 100000")
            else:
                (folder / "cpu.cfs_quota_us").write_text(str(quota))

    def pids(self) -> set[int]:
        """Return the pids of all processes in it and in groups below it."""
        return set(self.each_pid())

    def each_pid(self) -> Iterator[int]:
        """Yield these pids, outermost group first, perhaps more than once.

        Cheaper than `pids` where the first is enough.
        """
        for folder in self.folders():
            for path, _, _ in os.walk(folder):
                yield from _procs(Path(path))

    @property
    def populated(self) -> bool:
        """Whether any process is in it."""
        return next(self.each_pid(), None) is not None

    def kill(self, within: float = 15.0) -> None:
        """Kill all processes in it and wait for their end. Raises CommandExecutionError after ``within`` seconds."""
        deadline = time.monotonic() + within
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise CommandExecutionError(
                    f"processes of {self.name} did not end within {within:.0f} s of SIGKILL: {sorted(pids)}; they "
                    "probably wait for a disk or a network file system (ps -o pid,stat,wchan); fix that, and repeat"
                )
            time.sleep(0.01)

    def remove(self) -> None:
        """Remove the empty cgroup from every hierarchy."""
        for folder in self.folders():
            for group in _tree(folder):
                _rmdir(group)
            with suppress(OSError):  # fails while the slice has other machines
                folder.parent.rmdir()


def _close(folder: Path, devices: Iterable[str]) -> None:
    """Deny every device but ``devices`` to a v1 group, and make the group inside, in which the processes are."""
    (folder / "devices.deny").write_text("a")
    for device in devices:
        (folder / "devices.allow").write_text(device)
    (folder / _INSIDE).mkdir(exist_ok=True)


def _prefix(folders: list[Path]) -> list[str]:
    """Return a command prefix that puts its process into cgroups and then runs the command."""
    return ["/bin/sh", "-ec", _JOIN, "sh", *map(str, folders), "--"]


def _leaf(folder: Path) -> Path:
    """Return a group for a process that joins later: in v2 a group that has groups below it takes no processes."""
    leaf = folder / "joined"
    leaf.mkdir(exist_ok=True)
    return leaf


def _create(tree: Hierarchy, folder: Path) -> None:
    for group in (folder.parent, folder):
        if tree.unified:
            _delegate(group.parent)
        group.mkdir(exist_ok=True)
        if "cpuset" in tree.controllers and not tree.unified:
            for file in ("cpuset.cpus", "cpuset.mems"):  # a new v1 cpuset is empty and takes no processes
                (group / file).write_text((group.parent / file).read_text())


def _delegate(group: Path) -> None:
    """Enable the limits of a v2 group for the groups below it. The kernel refuses where the group has processes."""
    with suppress(OSError):
        (group / "cgroup.subtree_control").write_text("+memory +cpu")


def _tree(folder: Path) -> Iterator[Path]:
    """Yield a group and all groups below it, the innermost first."""
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _procs(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError):
        return []


def _rmdir(group: Path, within: float = 5.0) -> None:
    """Remove one group. Retry for ``within`` seconds: the kernel reports EBUSY shortly after the last process ended."""
    deadline = time.monotonic() + within
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            return
        except OSError as err:
            if time.monotonic() > deadline:
                raise CommandExecutionError(
                    f"cannot remove the cgroup {group}: {err}; repeat the command when its processes have ended"
                ) from err
            time.sleep(0.01)
