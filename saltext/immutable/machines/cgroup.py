"""A cgroup of its own for each machine, in every hierarchy of this host (v1, v2 or both).

Machines that share a cgroup share their services' cgroups too and cannot stop them; limits live here as well.
Where systemd is pid 1 it owns the tree, and a scope of it (`systemd-run --scope`) takes the place of ours.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import systemd_here

SLICE = "immutable"
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
    """One mounted cgroup tree."""

    mount: Path
    unified: bool
    controllers: frozenset[str]


def hierarchies() -> list[Hierarchy]:
    """Return the cgroup trees that are mounted here."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.append(Hierarchy(Path(mount), True, _unified(Path(mount))))
        elif kind == "cgroup":
            found.append(Hierarchy(Path(mount), False, frozenset(options.split(","))))
    if not found:
        raise CommandExecutionError("no cgroup hierarchy is mounted below /sys/fs/cgroup; machines need one")
    return found


def _unified(mount: Path) -> frozenset[str]:
    try:
        return frozenset((mount / "cgroup.controllers").read_text().split())
    except FileNotFoundError:
        return frozenset()


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one machine, by name; nothing is kept but what the kernel keeps."""

    name: str
    memory: int | None = None
    """Bytes."""
    cpus: float | None = None

    def folders(self) -> list[Path]:
        """Return where this cgroup is, or would be, in each hierarchy."""
        inner = Path(f"{SLICE}.slice/{self.unit}.scope") if systemd_here() else Path(SLICE, self.name)
        return [tree.mount / inner for tree in hierarchies()]

    @property
    def unit(self) -> str:
        """The name of the machine's scope where systemd is pid 1."""
        return f"{SLICE}-{self.name}"

    def starter(self) -> list[str]:
        """Return the words to put before a command so that it starts inside this cgroup."""
        if systemd_here():
            limits = [f"--property=MemoryMax={self.memory}"] if self.memory else []
            limits += [f"--property=CPUQuota={self.cpus * 100:.0f}%"] if self.cpus else []
            scope = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={self.unit}"]
            return [*scope, f"--slice={SLICE}", "--property=Delegate=yes", *limits, "--"]
        for tree, folder in zip(hierarchies(), self.folders(), strict=True):
            _create(tree, folder)
            self._limit(tree, folder)
        return _joiner(self.folders())

    def joiner(self) -> list[str]:
        """Return the words to put before a command so that it joins this cgroup, which is there."""
        # A scope of systemd is only in the v1 hierarchies whose limits it has.
        there = [(tree, folder) for tree, folder in zip(hierarchies(), self.folders(), strict=True) if folder.is_dir()]
        return _joiner([_leaf(folder) if tree.unified else folder for tree, folder in there])

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
        """Return the processes in it, those of groups below included."""
        return set(self.each_pid())

    def each_pid(self) -> Iterator[int]:
        """Yield them, the outermost first, each perhaps more than once: who needs one need not read every group."""
        for folder in self.folders():
            for path, _, _ in os.walk(folder):
                yield from _procs(Path(path))

    @property
    def populated(self) -> bool:
        """Whether there is any."""
        return next(self.each_pid(), None) is not None

    def kill(self, within: float = 15.0) -> None:
        """Kill all that is in it and wait until nothing is left."""
        deadline = time.monotonic() + within
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise CommandExecutionError(f"processes of {self.name} do not die: {sorted(pids)}")
            time.sleep(0.01)

    def remove(self) -> None:
        """Remove it, emptied, from every hierarchy."""
        for folder in self.folders():
            for group in _tree(folder):
                _rmdir(group)
            with suppress(OSError):  # the slice goes with its last machine
                folder.parent.rmdir()


def _joiner(folders: list[Path]) -> list[str]:
    return ["/bin/sh", "-ec", _JOIN, "sh", *map(str, folders), "--"]


def _leaf(folder: Path) -> Path:
    """Return a group for a process that comes later: in v2 a group with groups below it takes no processes."""
    leaf = folder / "visitors"
    leaf.mkdir(exist_ok=True)
    return leaf


def _create(tree: Hierarchy, folder: Path) -> None:
    for group in (folder.parent, folder):
        if tree.unified:
            _delegate(group.parent)
        group.mkdir(exist_ok=True)
        if "cpuset" in tree.controllers and not tree.unified:
            for file in ("cpuset.cpus", "cpuset.mems"):  # a v1 cpuset is born empty and takes no process
                (group / file).write_text((group.parent / file).read_text())


def _delegate(group: Path) -> None:
    """Offer the limits of a v2 group to the groups below it; a group with processes of its own cannot."""
    with suppress(OSError):
        (group / "cgroup.subtree_control").write_text("+memory +cpu")


def _tree(folder: Path) -> Iterator[Path]:
    """Yield the groups of a tree, the innermost first."""
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _procs(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError):
        return []


def _rmdir(group: Path, within: float = 5.0) -> None:
    """Remove one group; the kernel says busy for a moment after its last process died."""
    deadline = time.monotonic() + within
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            return
        except OSError as err:
            if time.monotonic() > deadline:
                raise CommandExecutionError(f"cannot remove the cgroup {group}: {err}") from err
            time.sleep(0.01)
