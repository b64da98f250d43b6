"""The seal file of a machine and the file that its launch wrote: which image, which fleet, which pinned master.

Standard library only: the guard reads both before each call.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass, fields
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"
"""The bake writes it into every image. A host that has this file is a sealed machine."""
MACHINE_PATH = "/etc/salt/minion.d/zzz-machine.conf"
"""Written at launch: Salt config in JSON that holds for this machine only."""

RUN_PATH = "/run/immutable"
"""State of this boot; only root may read it."""


class SealDamaged(Exception):
    """The seal or the machine file cannot be read, or does not have the form that a bake or a launch writes."""


@dataclass(frozen=True)
class Seal:
    """The content of the seal file."""

    image: str
    """Digest of the image, in full."""
    recipe: str
    read_only: bool
    created: float
    """Seconds since the epoch."""
    salt: str
    pack: str
    """Versions of Salt and of this pack when the image was baked."""
    policy: dict[str, Any]
    """The result of `spec.policy`."""
    adopted: dict[str, Any] | None = None
    """Only of a minion that was sealed by ``immutable.seal``: ``id``; ``master_finger`` and ``hash_type`` of its
    master; ``scheduled``, whether its scheduler ran before."""

    @property
    def name(self) -> str:
        """Return the short name of the image: ``web@3f2a9c1d04be``."""
        return f"{self.recipe}@{self.image[:12]}"


def read(path: str = SEAL_PATH) -> Seal | None:
    """Return the seal, or None on a host without one; raise ``SealDamaged`` if it cannot be read."""
    text = content(path)
    return None if text is None else parsed(text, path)


def parsed(text: str, path: str) -> Seal:
    """Return the seal that the text of the seal file holds; raise ``SealDamaged`` if it holds none."""
    found = _mapping(text, path)
    values: dict[str, Any] = {field.name: found.get(field.name) for field in fields(Seal)}
    wrong = sorted(name for name, value in values.items() if not _fits(name, value))
    if wrong:
        raise SealDamaged(f"{path} is damaged: missing or of a wrong type: {', '.join(wrong)}")
    return Seal(**values)


def required(consequence: str) -> Seal:
    """Return the seal of this machine; raise ``CommandExecutionError`` if it is damaged or not there.

    ``consequence``: what follows from a missing seal, for the message.
    """
    from salt.exceptions import CommandExecutionError  # not at the top: the guard reads the seal without Salt

    try:
        found = read(SEAL_PATH)
    except SealDamaged as err:
        raise CommandExecutionError(f"{err}; replace this machine") from err
    if found is None:
        raise CommandExecutionError(f"this machine is not sealed: {consequence}")
    return found


def machine(path: str = MACHINE_PATH) -> dict[str, Any]:
    """Return ``fleet``, ``generation`` and ``installation``; an empty dict if no fleet launched this machine."""
    return machine_of(content(path), path)


def machine_of(text: str | None, path: str) -> dict[str, Any]:
    """Return what `machine` does, from the text of the file; None: there is no file."""
    found = {} if text is None else _mapping(text, path).get("immutable_machine", {})
    if not isinstance(found, dict):
        raise SealDamaged(f"{path} is damaged: immutable_machine is not a mapping")
    return found


def pinned(found: Seal, path: str = MACHINE_PATH) -> dict[str, Any]:
    """Return ``id``, ``master_finger`` and ``hash_type`` as launch or adoption fixed them; the config is ignored."""
    source = found.adopted
    if source is None:
        text = content(path)
        source = {} if text is None else _mapping(text, path)
    names = ("id", "master_finger", "hash_type")
    wrong = [name for name in names if not isinstance(source.get(name), str) or not source[name]]
    if wrong:
        raise SealDamaged(f"{path} is damaged: missing or of a wrong type: {', '.join(wrong)}")
    return {name: source[name] for name in names}


def read_regular(path: str) -> str:
    """Return the text of a regular file; raise ``OSError`` for anything else. (Reading a pipe might never end.)"""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts = [os.read(file, about.st_size + 1)]
        while parts[-1]:
            parts.append(os.read(file, 1 << 16))
    finally:
        os.close(file)
    return b"".join(parts).decode()


def content(path: str) -> str | None:
    """Return the text of a file, None if there is none; raise ``SealDamaged`` if it cannot be read."""
    try:
        return read_regular(path)
    except FileNotFoundError as err:
        if os.path.islink(path):
            raise SealDamaged(f"{path} is damaged: it is a link to a file that does not exist") from err
        return None
    except (OSError, ValueError) as err:
        raise SealDamaged(f"{path} is damaged: {err}") from err


def _mapping(text: str, path: str) -> dict[str, Any]:
    """Return the mapping that a text holds in JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SealDamaged(f"{path} is damaged: {err}") from err
    if not isinstance(found, dict):
        raise SealDamaged(f"{path} is damaged: it does not hold a mapping")
    return found


def _fits(name: str, value: object) -> bool:
    if name == "read_only":
        return isinstance(value, bool)
    if name == "adopted":
        return value is None or isinstance(value, dict)
    if name == "policy":
        return isinstance(value, dict) and isinstance(value.get("guard"), dict)
    if name == "created":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) and bool(value)
