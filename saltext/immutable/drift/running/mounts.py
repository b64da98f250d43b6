"""Mounts that hide files of the image, of the kernel, or processes, in any mount namespace."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from saltext.immutable.drift.item import Item
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.guard.seal import MACHINE_PATH, RUN_PATH

_SYSTEM = ("/dev", "/proc", "/run", "/sys")
_MACHINE_ID = "/etc/machine-id"
_OF_LAUNCH = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", _MACHINE_ID, MACHINE_PATH)
"""Files that a launch mounts from the host; what a machine mounts comes from its own overlays."""
_OF_KERNEL = (
    *("autofs", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl"),
    *("hugetlbfs", "mqueue", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs"),
)
"""File systems that belong below /dev and /sys."""
_MASKED = re.compile(
    r"/proc/(acpi|asound|bus|cpuinfo|diskstats|fs|fs/nfsd|interrupts|irq|kallsyms|kcore|keys|kmsg|latency_stats|loadavg"
    r"|meminfo|sched_debug|scsi|slabinfo|stat|swaps|sys/fs/binfmt_misc|sysrq-trigger|timer_list|timer_stats|uptime)"
    r"|/sys/(devices/system/cpu(/online)?|devices/virtual/powercap|firmware|fs/cgroup)"
)
"""What containers hide from their processes or show them in another way; nothing here reads it."""
_BOOT_ID = re.compile(r"/proc/sys/kernel/random/(boot_id|uuid)")
"""Which containers give values of their own. Break-glass does not rely on it alone."""
_TEMPORARY = ("/dev/", "/run/", "/tmp/", "/var/tmp/")
_OF_SYSTEMD = (f"{RUN_PATH}/", "/run/systemd/generator", "/run/systemd/system", "/run/systemd/transient", "/run/udev/")
"""Folders of /run that decide what runs, and what the guard counts."""
_PRIVATE_TMP = re.compile(r"(/[^/]+)*/systemd-private-[^/]+/tmp")
_INACCESSIBLE = re.compile(r"(/systemd|/host)/inaccessible/(reg|dir|chr|blk|fifo|sock)")
_STATE = re.compile(r"/var/(lib|cache|log)/(?!private(/|$))")
"""Where the folders of a unit with a user of its own are, which lie below ``private`` there (DynamicUser=)."""
_EMPTIED = (
    *("/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev", "/dev/shm"),
    *("/var/cache/private", "/var/lib/private", "/var/log/private"),
)
"""Where systemd mounts an empty tmpfs for one unit (ProtectHome=tmpfs, PrivateDevices=, DynamicUser=)."""
_LOCAL_KINDS = ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "vfat", "xfs", "zfs")
"""File systems that are neither of the network nor of the kernel."""
_NOT_SEARCHED = ("9p", "afs", "ceph", "cifs", "fuse.sshfs", "nfs", "nfs4", "nsfs", "proc", "smb3", *_OF_KERNEL)
"""File systems of the kernel and of the network, in which no program with rights is looked for."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    point: str
    kind: str
    """The type of the file system."""
    part: str
    """The folder of the file system that is mounted there: ``/`` or, of a bind mount, another."""
    source: str
    device: str = ""
    """Numbers of the file system's device: ``254:0``."""
    options: str = ""


class Namespace(NamedTuple):
    """A mount namespace that is not init's."""

    pid: int
    """A process in it."""
    mounts: list[Mount]


def scan(proc: str) -> list[Mount]:
    """Return the mounts that this process or init sees; of both, for each mount point, the longer list."""
    found: dict[str, list[Mount]] = {}
    for pid in ("self", "1"):
        with suppress(OSError):
            seen = _read(f"{proc}/{pid}/mountinfo")
            for point in {mount.point for mount in seen}:
                at_point = [mount for mount in seen if mount.point == point]
                found[point] = max(found.get(point, []), at_point, key=len)
    return [mount for at_point in found.values() for mount in at_point]


def _read(path: str) -> list[Mount]:
    """Return the mounts in a file mountinfo. Of white space the kernel escapes only space, tab and newline."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return [_parsed(line) for line in file.read().split("\n") if line]


def _parsed(line: str) -> Mount:
    """Parse a line of mountinfo. See proc(5): there are optional fields before the single dash."""
    before, _, after = line.partition(" - ")
    _, _, device, part, point, options, *_ = before.split(" ")
    kind, source, *_ = [*after.split(" "), ""]
    return Mount(_plain(point), kind, _plain(part), _plain(source), device, options)


def scan_namespaces(proc: str, pids: Iterable[int]) -> list[Namespace]:
    """Return every mount namespace of a thread of these processes that is neither init's nor this process's own.

    The kernel has one of its own, for devtmpfs.
    """
    seen = {_namespace(f"{proc}/{pid}") for pid in ("1", "self")}
    found = []
    for pid in pids:
        for thread in _threads(f"{proc}/{pid}/task"):
            if (own := _namespace(thread)) and own not in seen:
                with suppress(OSError):
                    found.append(Namespace(pid, _read(f"{thread}/mountinfo")))
                    seen.add(own)
    return found


def _threads(folder: str) -> list[str]:
    """Return the folders of the threads of a process; none where it has ended."""
    with suppress(OSError):
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    return []


def _namespace(folder: str) -> str:
    """Return the name of a thread's mount namespace; '' of one that has ended."""
    with suppress(OSError):
        return os.readlink(f"{folder}/ns/mnt")
    return ""


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def same_root(proc: str, root: str = "/") -> bool:
    """Tell whether this process has the same root as init; True if that cannot be read."""
    try:
        return os.path.samestat(os.stat(f"{proc}/1/root"), os.stat(root))
    except OSError:
        return True


def drift(
    mounts: Iterable[Mount],
    mutable: Mutable,
    declared: Mutable,
    writable: Collection[str],
    planned: Collection[str],
) -> Iterator[Item]:
    """Yield the mounts that hide files of the image or of the kernel.

    ``mutable``: all that may differ, ``declared``: what the recipe says of it; ``writable``: mount points of a
    read-only image's overlays; ``planned``: mount points in its fstab and units.
    """
    mounted = list(mounts)
    if ("/proc", "proc") not in {(mount.point, mount.kind) for mount in mounted}:
        yield Item("mount", "/proc", "it is not the kernel's file system, so processes cannot be seen")
    counts = Counter(mount.point for mount in mounted if mount.kind != "autofs")  # it waits below what it mounted
    for mount in {each.point: each for each in mounted}.values():
        known = mount.point in planned or (mount.point in writable and mount.kind == "overlay")
        if mount.part.startswith("mnt:["):
            yield Item("mount", mount.point, "it keeps a mount namespace that no process has")
        elif counts[mount.point] > 1 and not _may_be_stacked(mount, mutable):
            yield Item("mount", mount.point, f"{counts[mount.point]} file systems are mounted over each other")
        elif not (known or _is_expected(mount) or _may_be_mounted(mount, mutable, declared)):
            yield Item("mount", mount.point, _hides(mount))


def drift_of_namespaces(
    namespaces: Iterable[Namespace], mounts: Iterable[Mount], declared: Mutable, may_mount: Callable[[int], bool]
) -> Iterator[Item]:
    """Yield the mounts that show a process something else than init sees at that path.

    ``mounts``: those of init; ``declared``: what the recipe says may differ. ``may_mount``: whether a process belongs
    to a unit of the image that says what else is to be mounted for it (``BindPaths=`` and others).
    """
    of_init = {mount.point: mount for mount in mounts}
    for pid, own in namespaces:
        for mount in own if not may_mount(pid) else ():
            known = _shows(mount, mount.point, of_init) or _is_of_unit(mount, of_init)
            if not known and not declared.may_differ(mount.point.strip("/")):
                yield Item("mount", mount.point, f"{_hides(mount)} in the mount namespace of pid {pid}")


def _hides(mount: Mount) -> str:
    return f"{mount.kind} {mount.source} ({mount.part}) is mounted over it"


def _shows(mount: Mount, path: str, of_init: Mapping[str, Mount]) -> bool:
    """Tell whether a mount shows the folder that init sees at a path."""
    point = path
    while point not in of_init and point != "/":
        point = os.path.dirname(point)
    if (above := of_init.get(point)) is None:
        return False
    part = os.path.normpath(f"{above.part.rstrip('/')}/{os.path.relpath(path, point)}")
    return (mount.device, os.path.normpath(mount.part)) == (above.device, part)


def _is_of_unit(mount: Mount, of_init: Mapping[str, Mount]) -> bool:
    """Tell whether systemd mounts such a thing for a unit that shuts itself in."""
    if mount.point in _EMPTIED and (mount.kind, mount.part) == ("tmpfs", "/"):
        return True
    if mount.point in ("/tmp", "/var/tmp"):
        return _PRIVATE_TMP.fullmatch(mount.part) is not None
    if _INACCESSIBLE.fullmatch(mount.part) and "/run" in of_init and mount.device == of_init["/run"].device:
        return True
    if _STATE.match(mount.point) and _shows(mount, _STATE.sub(r"/var/\1/private/", mount.point, count=1), of_init):
        return True
    inside = mount.point.startswith(("/run/credentials/", "/run/systemd/incoming", "/run/systemd/unit-root"))
    return inside or _is_of_kernel(mount)


def _is_expected(mount: Mount) -> bool:
    """Tell whether the kernel, systemd or the launch mounts such a thing there."""
    if mount.point in _OF_LAUNCH:
        made_by_init = (mount.point, mount.kind, mount.part) == (_MACHINE_ID, "tmpfs", "/machine-id")
        return made_by_init or mount.kind not in ("overlay", "tmpfs", "ramfs")
    return mount.point in ("/", *_SYSTEM) or _is_of_kernel(mount)


def _is_of_kernel(mount: Mount) -> bool:
    """Tell whether a mount below /dev, /proc or /sys shows what the kernel shows there, or what containers hide."""
    if not mount.point.startswith(("/dev", "/proc", "/sys")):
        return False
    if mount.kind == "proc":
        return mount.point == os.path.normpath(f"/proc{mount.part}")
    if _BOOT_ID.fullmatch(mount.point):
        return mount.kind in ("tmpfs", "fuse.lxcfs")
    if _MASKED.fullmatch(mount.point):
        return True
    return mount.kind in _OF_KERNEL and not mount.point.startswith("/proc")


def _may_be_mounted(mount: Mount, mutable: Mutable, declared: Mutable) -> bool:
    """Tell whether any file system may be mounted there: in a path of the recipe, or in a temporary folder."""
    if mount.point in _OF_LAUNCH or f"{mount.point}/".startswith(_OF_SYSTEMD):
        return False
    path = mount.point.strip("/")
    temporary = mount.point == "/tmp" or mount.point.startswith(_TEMPORARY)
    return declared.may_differ(path) or (temporary and mutable.may_differ(path))


def _may_be_stacked(mount: Mount, mutable: Mutable) -> bool:
    """Tell whether several file systems may be mounted over each other there; read-only mounts of nspawn are two."""
    if _BOOT_ID.fullmatch(mount.point) or mount.point.startswith(_TEMPORARY):
        return mutable.may_differ(mount.point.strip("/"))
    return False


def weakened(mounts: Iterable[Mount], options: Mapping[str, str], declared: Mutable) -> Iterator[Item]:
    """Yield the writable places, and what is mounted below them, with fewer restrictions than the image says.

    ``options``: path -> options of mount(8), separated by commas; ``declared``: what the recipe says may differ.
    """
    mounted = {mount.point: mount for mount in mounts}
    for point, mount in {**dict.fromkeys(options), **mounted}.items():
        place = point
        while place not in options and place != "/":
            place = os.path.dirname(place)
        if place not in options or (mount and place != point and _is_left_alone(mount, declared)):
            continue
        found = mount.options.split(",") if mount else []
        if missing := [option for option in options[place].split(",") if option not in found]:
            yield Item("mount", point, f"it is mounted without {', '.join(missing)}")


def runs_nothing(mounts: Iterable[Mount], path: str) -> bool:
    """Tell whether a path without links is on a mount with ``noexec``; of mounts over each other, each must have it."""
    above = [mount for mount in mounts if f"{path}/".startswith(f"{mount.point.rstrip('/')}/")]
    nearest = max((len(mount.point) for mount in above), default=0)
    return bool(above) and all("noexec" in mount.options.split(",") for mount in above if len(mount.point) == nearest)


def _is_left_alone(mount: Mount, declared: Mutable) -> bool:
    """Tell whether systemd, the launch or a container engine decides how a place is mounted, below one of ours."""
    known = mount.point.startswith(("/run/host/", "/run/user/")) or not os.path.isdir(mount.point)
    return known or mount.kind in ("nsfs", *_OF_KERNEL) or declared.may_differ(mount.point.strip("/"))


def to_compare(mounts: Iterable[Mount], known: Collection[str]) -> set[str]:
    """Return those ``known`` mount points that are folders of local file systems."""
    local = {mount.point for mount in mounts if mount.point in known and mount.kind in _LOCAL_KINDS}
    return {point for point in local if os.path.isdir(point)}


def to_search(mounts: Iterable[Mount]) -> set[str]:
    """Return the mount points of file systems in which programs with rights are found.

    Left out are those of the kernel and of the network, and large ones on which such rights have no effect.
    """
    return {mount.point for mount in mounts if _is_to_search(mount)}


def _is_to_search(mount: Mount) -> bool:
    if mount.point in ("/", "/dev") or mount.point.startswith(("/proc", "/sys")) or mount.kind in _NOT_SEARCHED:
        return False
    harmless = {"nosuid", "nodev"} <= set(mount.options.split(","))
    return os.path.isdir(mount.point) and (mount.kind in ("tmpfs", "ramfs") or not harmless)


def planned(fstab: str, units: Iterable[str]) -> set[str]:
    """Return the mount points in the text of an fstab and of units; ``units``: names of ``.mount`` files."""
    fields = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    points = {_plain(words[1]) for words in fields if len(words) > 1}
    return points | {_unescaped(unit) for unit in units if unit.endswith(".mount")}


def _unescaped(unit: str) -> str:
    """Return the mount point of a unit's name. See systemd-escape(1)."""
    path = "/" + unit.removesuffix(".mount").replace("-", "/")
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)
