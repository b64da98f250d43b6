"""Breaking the glass on the machine: a challenge, a token that answers it, and what is open since.

All of it is in ``/run``, so a reboot ends it; what lies there is believed only as far as the master signed it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError
from salt.utils.crypt import pem_finger

from saltext.immutable.guard import seal
from saltext.immutable.guard import token as glass
from saltext.immutable.host import this_boot, write

_KERNELS_OWN_TIME = "time:[4026531834]"
"""The time namespace that a machine starts with has this number: PROC_TIME_INIT_INO of Linux."""


def challenge(ttl: float) -> dict[str, Any]:
    """Return what the master has to sign so that this machine opens for ``ttl`` seconds; a later one outdates it."""
    found = _seal()
    if not 0 < ttl <= glass.LONGEST:
        raise CommandExecutionError(f"ttl: {ttl:g} s is not between 0 and {glass.LONGEST:g} s")
    asked = {
        "machine": seal.pinned(found, seal.MACHINE_PATH)["id"],
        "nonce": secrets.token_hex(16),
        "boot_id": this_boot(),
        "until": _now() + ttl,
    }
    _write("challenge.json", json.dumps(asked))
    return {**asked, **scope(found)}


def scope(found: seal.Seal) -> dict[str, list[str]]:
    """Return what broken glass opens on a machine, and what it cannot open."""
    paths = ", ".join(["/var", "/run", "/tmp", *found.policy.get("writable", [])])
    cannot = [f"the root is mounted read-only: nothing but {paths} can be written"] if found.read_only else []
    return {"opens": ["every function of Salt"], "cannot": cannot}


def break_glass(opts: Mapping[str, Any], token: str) -> glass.Grant:
    """Open this machine with a token that answers its last challenge; each challenge is answered once."""
    found = _seal()
    try:
        grant = _checked(opts, found, token)
    except glass.Refused as err:
        raise CommandExecutionError(f"the glass stays whole: {err}") from err
    asked = _challenge()
    told = {"machine": grant.machine, "nonce": grant.nonce, "boot_id": grant.boot_id, "until": grant.until}
    if asked != told:
        raise CommandExecutionError("the glass stays whole: the token answers no challenge that is open")
    os.unlink(_place("challenge.json"))  # before it counts: it must not count twice
    _write("glass", token)
    return grant


def end() -> bool:
    """Close this machine again before the time is over; False if it was not open."""
    try:
        os.unlink(_place("glass"))
    except FileNotFoundError:
        return False
    return True


def grant(opts: Mapping[str, Any]) -> glass.Grant | None:
    """Return by which grant this machine is open, or None."""
    try:
        return _checked(opts, _seal(), seal.regular(_place("glass")))
    except (OSError, ValueError, glass.Refused, CommandExecutionError, seal.SealDamaged):
        return None


def seconds_left(granted: glass.Grant) -> float:
    """Return for how long a grant still holds."""
    return max(0.0, granted.until - _now())


def _checked(opts: Mapping[str, Any], found: seal.Seal, token: str) -> glass.Grant:
    """Return what a token grants here and now; the master's key is the one that was pinned, wherever it is read."""
    pinned = seal.pinned(found, seal.MACHINE_PATH)
    granted = glass.verify(token, _master_key(os.path.join(opts["pki_dir"], "minion_master.pub"), pinned))
    if reason := glass.opens(granted, pinned["id"], this_boot(), _now()):
        raise glass.Refused(reason)
    if _clock_is_chosen():
        raise glass.Refused("this process lives in a time namespace, whose clock somebody chose")
    return granted


def _master_key(path: str, pinned: Mapping[str, str]) -> bytes:
    """Return the key that was pinned, made of nothing but what its finger is the hash of.

    Salt leaves the first and the last line out of it: another whole key fits into them.
    """
    text = ""
    with suppress(OSError, ValueError):
        text = seal.regular(path)
    lines = [line for line in text.encode().split(b"\n") if line.strip()]
    body = b"".join(line.removesuffix(b"\r") + b"\n" for line in lines[1:-1])
    if not body or pem_finger(key=body, sum_type=pinned["hash_type"]) != pinned["master_finger"]:
        raise glass.Refused("the key of this minion's master is not the one that its launch fixed")
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"


def _seal() -> seal.Seal:
    return seal.required("there is no glass to break")


def _challenge() -> Any:
    with suppress(OSError, ValueError):
        return json.loads(seal.regular(_place("challenge.json")))
    return None


def _place(name: str) -> str:
    return f"{seal.RUN_PATH}/{name}"


def _write(name: str, text: str) -> None:
    os.makedirs(seal.RUN_PATH, mode=0o700, exist_ok=True)
    write(Path(_place(name)), text, mode=0o600)


def _clock_is_chosen() -> bool:
    """Tell whether this process lives in a time namespace: there ``CLOCK_BOOTTIME`` is what its maker says."""
    try:
        return os.readlink("/proc/self/ns/time") != _KERNELS_OWN_TIME
    except FileNotFoundError:  # a kernel without them
        return False


def _now() -> float:
    """Return seconds of a clock that nobody can set, and that a suspended machine does not stop."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
