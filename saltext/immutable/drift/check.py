"""Compare this machine with its image: the function ``immutable.drift``."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable import kernel
from saltext.immutable.drift import accounts, config, files, image, tree
from saltext.immutable.drift.image import Image
from saltext.immutable.drift.item import Item
from saltext.immutable.drift.owners import owners
from saltext.immutable.drift.paths import Mutable, real_path
from saltext.immutable.drift.running import limits, logins, mounts, processes, services, sockets
from saltext.immutable.drift.running.environment import Origin
from saltext.immutable.drift.running.processes import Process
from saltext.immutable.guard import seal
from saltext.immutable.guard.reach.units import IMAGE as UNITS_OF_IMAGE
from saltext.immutable.host import require_root
from saltext.immutable.images import noexec_mounts, unit_drop_ins

MAX_ITEMS = 1000
"""How many items ``drift`` lists; ``counts`` counts all of them."""


def check(digest: str | None = None, full: bool = False) -> dict[str, Any]:
    """Return what differs on this machine from image ``digest`` (None: the image in its own seal).

    Keys: ``drift``, a list of `Item` as mappings; ``counts``, the number of items by kind; ``proven``, whether a digest
    of the caller proves all that the machine was compared with; ``files``, how many were compared; ``seconds``;
    ``image``, the digest. ``full``: read the content of every file, also where size and time are those of the image.
    Raises ``CommandExecutionError`` on a machine that is not sealed.
    """
    require_root()
    began = time.monotonic()
    items, count, proven = _items(digest, full)
    return {
        "drift": [item.as_dict() for item in items[:MAX_ITEMS]],
        "counts": dict(Counter(item.kind for item in items)),
        "proven": proven,
        "files": count,
        "seconds": round(time.monotonic() - began, 3),
        "image": digest or _seal_digest(),
    }


def _items(digest: str | None, full: bool) -> tuple[list[Item], int, bool]:
    try:
        sealed = seal.read(seal.SEAL_PATH)
        if sealed is None:
            raise CommandExecutionError("this machine is not sealed: there is no image to compare it with")
        expected = image.read("/", sealed, digest or sealed.image)
    except seal.SealDamaged as err:
        return [Item("manifest", seal.SEAL_PATH, str(err))], 0, False
    except image.Forged as err:
        # Nothing else can be compared. But list the mounts: one of them may be how the proof was forged.
        seen = mounts.scan("/proc")
        parts = [mount.point for mount in seen if f"{mount.point}/".startswith("/var/")]  # overlays, if they are known
        mounted = mounts.drift(seen, Mutable(()), Mutable((), ()), parts, ())
        return [Item("manifest", *err.args), *mounted], 0, False
    with kernel.fresh_procfs() as proc:
        comparison = _Comparison(sealed, expected, full, proc)
        return list(comparison.items()), comparison.files.count, digest is not None


def _seal_digest() -> str | None:
    with suppress(seal.SealDamaged):
        found = seal.read(seal.SEAL_PATH)
        return found.image if found else None
    return None


class _Comparison:
    """One comparison: reads everything once, then lists what is not from the image."""

    def __init__(self, sealed: seal.Seal, expected: Image, full: bool, proc: str) -> None:
        self.proc = proc
        self.image = expected
        self.policy, self.read_only = sealed.policy, sealed.read_only
        self.adopted = sealed.adopted is not None
        self.since = sealed.created if self.adopted else 0.0
        own = [*sealed.policy.get("mutable", ()), *sealed.policy.get("writable", ())]
        self.declared = Mutable(own, defaults=())
        self.mutable = Mutable(own)
        self.mounted = mounted = mounts.scan(proc)
        self.planned: set[str] = set()
        """Mount points in the fstab and the units of the image."""
        self.mounts = list(self._mounts(sealed, mounted))
        mutable = {mount.point for mount in mounted if self.mutable.may_differ(mount.point.strip("/"))}
        compared = (self._compared_points(sealed) | mutable) - {item.what for item in self.mounts}
        left_out = {mount.point for mount in mounted} - mounts.to_compare(mounted, compared)
        # What is below /dev is not read from there.
        searched = {one.strip("/") for one in mounts.to_search(mounted) if one in left_out or one.startswith("/dev/")}
        left_out = {point.strip("/") for point in left_out}
        self.files = files.differences("/", expected, self.mutable, left_out, full, searched)
        self.processes = processes.scan(proc)
        self.units: set[str] | None = None
        self.explained: dict[str, frozenset[str]] = {}
        """Unit of the image to the variables and arguments that it gives its programs."""
        self.mounting: set[str] = set()
        """Units of the image that say what is to be mounted for them alone."""

    def _compared_points(self, sealed: seal.Seal) -> set[str]:
        """Return the mount points of file systems whose content is compared with the image."""
        if sealed.read_only:
            return {"/var", *sealed.policy.get("writable", ()), *sealed.policy.get("exec", ())}
        return {f"/{path}" for path, entry in self.image.files.items() if entry.kind == tree.MOUNT}

    def _mounts(self, sealed: seal.Seal, mounted: list[mounts.Mount]) -> Iterator[Item]:
        compared = self._compared_points(sealed)
        points = compared if not sealed.read_only else set()
        units = [path.rsplit("/", 1)[-1] for path in self.image.files if path.endswith(".mount")]
        with suppress(OSError), open("/etc/fstab", encoding="utf-8", errors="surrogateescape") as file:
            points = points | mounts.planned(file.read(), units)
        self.planned = points
        writable = compared if sealed.read_only else set()
        yield from mounts.drift(mounted, self.mutable, self.declared, writable, points)
        for point in sorted(points & compared - {mount.point for mount in mounted}):
            yield Item("mount", point, "its file system is no longer mounted")

    def items(self) -> Iterator[Item]:
        """Yield all drift of this machine."""
        yield from self.mounts
        if kernel.is_covered(f"/proc/{os.getpid()}/mountinfo"):
            yield Item("mount", "/proc", "something is mounted over what the kernel says of this check")
        if not mounts.same_root(self.proc):
            yield Item("mount", "/", "this minion sees another root than init does")
        if os.getpid() not in {process.pid for process in self.processes}:
            yield Item("process", "/proc", "the process of this check is missing there, so others may be hidden too")
        yield from self._files()
        yield from config.drift(self.adopted)
        yield from self._services()
        foreign = list(processes.drift(self.processes, self.is_image_file, self._origin, self.explained))
        seen = {process.pid for process, _ in foreign}
        alone = processes.without_unit(self.processes, self.is_of_unit, os.getpid())
        # One that has ended meanwhile belonged to a unit that has ended, too.
        foreign += [one for one in alone if one[0].pid not in seen and os.path.exists(f"{self.proc}/{one[0].pid}")]
        yield from (item for _, item in foreign)
        of_units = {each.pid for each in self.processes if self.is_of_unit(each)}
        expected = of_units - {process.pid for process, _ in foreign} - set(sockets.started_by_runners(self.processes))
        try:
            yield from sockets.drift(sockets.scan(self.proc), self.processes, expected)
        except OSError as err:
            yield Item("socket", "/proc/net", f"it cannot be read: {err}")
        yield from logins.drift(logins.scan("/", self.since), self.processes, of_units)
        units = {process.pid: process.unit for process in self.processes}
        # Again: what was mounted meanwhile has reached the other namespaces, too.
        of_init = [*self.mounted, *mounts.scan(self.proc)]
        namespaces = mounts.scan_namespaces(self.proc, units)
        yield from mounts.drift_of_namespaces(
            namespaces, of_init, self.declared, lambda pid: units.get(pid) in self.mounting
        )

    def is_image_file(self, path: str) -> bool:
        """Tell whether a file is from the image and unchanged."""
        name = path.lstrip("/")
        entry = self.image.files.get(name)
        from_image = name in self.image.own or (entry is not None and entry.kind == "file")
        return from_image and name not in self.files

    def _origin(self, path: str) -> Origin:
        """Return where a path leads that a program is given, by links of the image alone."""
        name = real_path(path, lambda at: None if self.mutable.may_differ(at) or at in self.files else self._link(at))
        entry = self.image.files.get(name)
        may_differ = self.mutable.may_differ(name)
        if self.is_image_file(name) or (name and entry is not None and entry.kind == "dir" and not may_differ):
            return "image"
        if may_differ or not name or name in self.files or os.path.lexists(f"/{name}"):
            return "noexec" if mounts.runs_nothing(self.mounted, os.path.realpath(f"/{name}")) else "other"
        return "nothing"

    def _link(self, name: str) -> str | None:
        entry = self.image.files.get(name)
        return str(entry.content) if entry is not None and entry.kind == "link" else None

    def is_of_unit(self, process: Process) -> bool:
        """Tell whether a process is init or belongs to a unit of the image; True if systemd does not answer."""
        return self.units is None or process.unit in self.units

    def _files(self) -> Iterator[Item]:
        packages = owners("/", self.image, self.files.found)
        for path, difference in sorted(self.files.found.items()):
            yield from self._lines(path) or [files.item(path, difference, self.image, packages.get(path, ""))]

    def _lines(self, path: str) -> list[Item]:
        """Return what differs in a file that is compared line by line; empty if the image has no copy of it."""
        before = self.image.copy(path) if path in accounts.COMPARE else None
        with suppress(OSError):
            if before is not None:
                with open(f"/{path}", "rb") as file:
                    return list(accounts.COMPARE[path](before, file.read()))
        return []

    def _services(self) -> Iterator[Item]:
        try:
            known, variables = services.scan(), services.scan_environment()
        except services.SystemdUnavailable as err:
            yield Item("service", "systemd", f"it does not answer: {err}")
            return
        self.units = {"init.scope", *(each.name for each in known if services.from_image(each, self.is_image_file))}
        if noexec_mounts.are_restricted(self.policy, self.read_only) and kernel.may_mount(self.proc):
            places = noexec_mounts.flags(self.policy)
            own = [mount for mount in self.mounted if mount.point in places or mount.point not in self.planned]
            yield from mounts.weakened(own, places, self.declared)
        of_image = [each for each in known if each.name in self.units]
        self.explained = {each.name: services.explained(each, self.is_image_file) for each in of_image}
        groups = {each.name: each.group for each in known}
        yield from limits.drift(self.policy.get("limits", {}), groups, limits.ended(unit_drop_ins.OVER))
        self.mounting = {each.name for each in known if each.name in self.units and each.mounts}
        yield from services.environment(variables, self._is_foreign)
        yield from services.drift(
            known, lambda path: self.is_image_file(path) or self._is_declared(path), self._has_unit
        )

    def _has_unit(self, name: str) -> bool:
        """Tell whether the image has a unit of this name that is not masked."""
        found = [f"{folder}/{name}" for folder in UNITS_OF_IMAGE if f"{folder}/{name}" in self.image.files]
        masks = [path for path in found if self.image.files[path].kind == "link" and path.startswith("etc/")]
        return bool(found) and not any(self.image.files[path].content == "/dev/null" for path in masks)

    def _is_declared(self, path: str) -> bool:
        return self.declared.may_differ(path.lstrip("/"))

    def _is_foreign(self, path: str) -> bool:
        real = os.path.realpath(path)
        return os.path.exists(real) and (real.strip("/") or ".") not in self.image.files
