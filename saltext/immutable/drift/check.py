"""Compare this machine with its image."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.drift import accounts, config, files, image, logins, mounts, processes, services, sockets, tree
from saltext.immutable.drift.image import Image
from saltext.immutable.drift.item import Item
from saltext.immutable.drift.owners import owners
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.drift.processes import Process
from saltext.immutable.guard import seal
from saltext.immutable.host import require_root

MOST = 1000
"""Items that are told; ``counts`` has them all."""


def check(digest: str | None = None, full: bool = False) -> dict[str, Any]:
    """Return what on this machine is not as image ``digest`` says (None: the one that its own seal names).

    ``drift`` is a list of mappings as of `Item`, ``counts`` has how many there are of each kind, ``proven`` tells
    whether all that the machine was compared with leads to a digest that the caller gave. ``full``: read the content
    of every file, also where size and time are those of the image.
    """
    require_root()
    began = time.monotonic()
    found, count, proven = _items(digest, full)
    return {
        "drift": [item.told() for item in found[:MOST]],
        "counts": dict(Counter(item.kind for item in found)),
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
        of_image = image.read("/", sealed, digest or sealed.image)
    except seal.SealDamaged as err:
        return [Item("manifest", seal.SEAL_PATH, str(err))], 0, False
    except image.Forged as err:
        # Nothing can be compared; but what is mounted may be how it was forged.
        mounted = mounts.drift(mounts.look("/proc"), Mutable(()), ["/var"], ())
        return [Item("manifest", *err.args), *mounted], 0, False
    work = _Check(sealed, of_image, full)
    return list(work.items()), work.found.count, digest is not None


def _seal_digest() -> str | None:
    with suppress(seal.SealDamaged):
        found = seal.read(seal.SEAL_PATH)
        return found.image if found else None
    return None


class _Check:
    """One comparison: looks once at everything, then asks who is not of the image."""

    def __init__(self, sealed: seal.Seal, of_image: Image, full: bool) -> None:
        self.image = of_image
        self.adopted = sealed.adopted is not None
        self.since = sealed.created if self.adopted else 0.0
        own = [*sealed.policy.get("mutable", ()), *sealed.policy.get("writable", ())]
        self.declared = Mutable(own, defaults=())
        self.mutable = Mutable(own)
        here = mounts.look("/proc")
        self.mounts = list(self._mounts(sealed, here))
        mutable = {mount.point for mount in here if self.mutable.hides(mount.point.strip("/"))}
        part = (self._parts(sealed) | mutable) - {item.what for item in self.mounts}
        left_out = {mount.point for mount in here} - mounts.entered(here, part)
        self.found = files.differences("/", of_image, self.mutable, {point.strip("/") for point in left_out}, full)
        self.processes = processes.look()
        self.units: set[str] | None = None

    def _parts(self, sealed: seal.Seal) -> set[str]:
        """Return where file systems are mounted whose content is compared with the image."""
        if sealed.read_only:
            return {"/var", *sealed.policy.get("writable", ())}
        return {f"/{path}" for path, entry in self.image.files.items() if entry.kind == tree.MOUNT}

    def _mounts(self, sealed: seal.Seal, here: list[mounts.Mount]) -> Iterator[Item]:
        points = self._parts(sealed) if not sealed.read_only else set()
        units = [path.rsplit("/", 1)[-1] for path in self.image.files if path.endswith(".mount")]
        with suppress(OSError), open("/etc/fstab", encoding="utf-8", errors="surrogateescape") as file:
            points |= mounts.planned(file.read(), units)
        writable = self._parts(sealed) if sealed.read_only else set()
        yield from mounts.drift(here, self.mutable, writable, points)
        for gone in sorted(points & self._parts(sealed) - {mount.point for mount in here}):
            yield Item("mount", gone, "its file system is not mounted any more")

    def items(self) -> Iterator[Item]:
        """Yield all that drifted."""
        yield from self.mounts
        if not mounts.same_root("/proc"):
            yield Item("mount", "/", "this minion does not see the root that init sees")
        if os.getpid() not in {process.pid for process in self.processes}:
            yield Item("process", "/proc", "it does not show the process that looks")
        yield from self._files()
        yield from config.drift(self.adopted)
        yield from self._services()
        foreign = list(processes.drift(self.processes, self.is_ours))
        yield from (item for _, item in foreign)
        of_units = {each.pid for each in self.processes if self.of_unit(each)}
        ours = of_units - {process.pid for process, _ in foreign} - set(sockets.told_to_run(self.processes))
        try:
            yield from sockets.drift(sockets.look(), self.processes, ours)
        except OSError as err:
            yield Item("socket", "/proc/net", f"it cannot be read: {err}")
        yield from logins.drift(logins.look("/", self.since), self.processes, of_units)

    def is_ours(self, path: str) -> bool:
        """Tell whether a file is of the image and unchanged."""
        name = path.lstrip("/")
        entry = self.image.files.get(name)
        of_image = name in self.image.own or (entry is not None and entry.kind == "file")
        return of_image and name not in self.found

    def of_unit(self, process: Process) -> bool:
        """Tell whether a process is init, or of a unit of the image; unknown where systemd does not answer."""
        return self.units is None or process.unit in self.units

    def _files(self) -> Iterator[Item]:
        packages = owners("/", self.image, self.found.found)
        for path, said in sorted(self.found.found.items()):
            yield from self._lines(path) or [files.item(path, said, self.image, packages.get(path, ""))]

    def _lines(self, path: str) -> list[Item]:
        """Return what is different in a file that is told line by line, where that can be known."""
        before = self.image.copy(path) if path in accounts.COMPARE else None
        with suppress(OSError):
            if before is not None:
                with open(f"/{path}", "rb") as file:
                    return list(accounts.COMPARE[path](before, file.read()))
        return []

    def _services(self) -> Iterator[Item]:
        try:
            known, variables = services.look(), services.look_environment()
        except services.Silent as err:
            yield Item("service", "systemd", f"it cannot be asked: {err}")
            return
        self.units = {"init.scope", *(each.name for each in known if services.from_image(each, self.is_ours))}
        yield from services.environment(variables, self._is_strange)
        yield from services.drift(known, lambda path: self.is_ours(path) or self.declared.hides(path.lstrip("/")))

    def _is_strange(self, path: str) -> bool:
        place = os.path.realpath(path)
        return os.path.exists(place) and (place.strip("/") or ".") not in self.image.files
