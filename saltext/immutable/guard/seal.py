"""What a machine's files say about its image. Standard library only: the guard reads it before each call."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass, fields
from typing import Any

SEAL_PATH = "/etc/immutable/seal.json"
"""Written by the bake into every image; its presence is what makes a host a sealed machine."""
MACHINE_PATH = "/etc/salt/minion.d/zzz-machine.conf"
"""Written at launch: Salt config in JSON, with what is true of this one machine."""

RUN_PATH = "/run/immutable"
"""What is true until the next boot; of root alone."""


class SealDamaged(Exception):
    """A file that says what this machine is cannot be read or is not what a bake or a launch wrote."""


@dataclass(frozen=True)
class Seal:
    """What the bake wrote into the image."""

    image: str
    """Full digest."""
    recipe: str
    read_only: bool
    created: float
    """Seconds since the epoch."""
    salt: str
    pack: str
    """Versions of Salt and of this pack when the image was baked."""
    policy: dict[str, Any]
    """What `spec.policy` returns."""
    adopted: dict[str, Any] | None = None
    """Of a minion that was sealed as it ran: ``id``; ``master_finger`` and ``hash_type`` of its master; whether it was
    ``scheduled``, which means that its scheduler ran."""

    @property
    def name(self) -> str:
        """Return the image as people write it: ``web@3f2a9c1d04be``."""
        return f"{self.recipe}@{self.image[:12]}"


def read(path: str = SEAL_PATH) -> Seal | None:
    """Return the seal, or None on a host that has none; raise ``SealDamaged`` where it cannot be read."""
    found = _json(path)
    if found is None:
        return None
    values: dict[str, Any] = {field.name: found.get(field.name) for field in fields(Seal)}
    wrong = sorted(name for name, value in values.items() if not _fits(name, value))
    if wrong:
        raise SealDamaged(f"{path} is damaged: it lacks a proper {', '.join(wrong)}")
    return Seal(**values)


def required(otherwise: str) -> Seal:
    """Return the seal of this machine; raise with ``otherwise`` where there is none."""
    from salt.exceptions import CommandExecutionError  # who only reads the seal does without Salt

    try:
        found = read(SEAL_PATH)
    except SealDamaged as err:
        raise CommandExecutionError(f"{err}; replace this machine") from err
    if found is None:
        raise CommandExecutionError(f"this machine is not sealed: {otherwise}")
    return found


def machine(path: str = MACHINE_PATH) -> dict[str, Any]:
    """Return ``fleet``, ``generation`` and ``installation``; empty where no fleet launched this machine."""
    found = (_json(path) or {}).get("immutable_machine", {})
    if not isinstance(found, dict):
        raise SealDamaged(f"{path} is damaged: its immutable_machine is no mapping")
    return found


def pinned(found: Seal, path: str = MACHINE_PATH) -> dict[str, Any]:
    """Return ``id``, ``master_finger`` and ``hash_type`` as launch or adoption fixed them, whatever config says now."""
    told = found.adopted if found.adopted is not None else _json(path) or {}
    names = ("id", "master_finger", "hash_type")
    wrong = [name for name in names if not isinstance(told.get(name), str) or not told[name]]
    if wrong:
        raise SealDamaged(f"{path} is damaged: it lacks a proper {', '.join(wrong)}")
    return {name: told[name] for name in names}


def regular(path: str) -> str:
    """Return what is in a file; raise ``OSError`` for what is none, as whoever opened a pipe would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)
    with open(path, encoding="utf-8") as file:
        return file.read()


def _json(path: str) -> dict[str, Any] | None:
    try:
        found = json.loads(regular(path))
    except FileNotFoundError as err:
        if os.path.islink(path):
            raise SealDamaged(f"{path} is damaged: it leads nowhere") from err
        return None
    except (OSError, ValueError) as err:
        raise SealDamaged(f"{path} is damaged: {err}") from err
    if not isinstance(found, dict):
        raise SealDamaged(f"{path} is damaged: it holds no mapping")
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
