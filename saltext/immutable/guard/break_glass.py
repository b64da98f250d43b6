"""Break-glass on the machine: make a challenge, accept the token that answers it, check the token before each call.

Challenge and token are files in ``/run``, so a reboot ends break-glass. A file there grants only what the master
signed.
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

from saltext.immutable import kernel
from saltext.immutable.guard import seal
from saltext.immutable.guard.break_glass_token import MAX_TTL, Grant, InvalidToken, mismatch, verify
from saltext.immutable.host import this_boot, write

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace of process ids that the kernel starts with: PROC_PID_INIT_INO of Linux."""
_INITIAL_TIME_NAMESPACE = "time:[4026531834]"
"""The time namespace that the kernel starts with: PROC_TIME_INIT_INO of Linux."""


def challenge(ttl: float) -> dict[str, Any]:
    """Write and return what the master has to sign so that this machine opens for ``ttl`` seconds.

    Only the last challenge counts. Raises ``CommandExecutionError`` if this host is not sealed, or for a wrong ttl.
    """
    found = _seal()
    if not 0 < ttl <= MAX_TTL:
        raise CommandExecutionError(f"ttl: {ttl:g} s is not between 0 and {MAX_TTL:g} s")
    bound = {
        "machine": seal.pinned(found, seal.MACHINE_PATH)["id"],
        "nonce": secrets.token_hex(16),
        "boot_id": _boot(),
        "until": _now() + ttl,
    }
    _write("challenge.json", json.dumps(bound))
    return {**bound, **scope(found)}


def scope(found: seal.Seal) -> dict[str, list[str]]:
    """Return what break-glass opens on a machine, and what it cannot open: sentences."""
    paths = ", ".join(["/var", "/run", "/tmp", *found.policy.get("writable", [])])
    cannot = [f"the root is mounted read-only: only {paths} can be written"] if found.read_only else []
    return {"opens": ["every function of Salt"], "cannot": cannot}


def apply_token(opts: Mapping[str, Any], token: str) -> Grant:
    """Open this machine with a token that answers its last challenge, and return the grant.

    Each challenge is answered once. Raises ``CommandExecutionError`` for any other token.
    """
    found = _seal()
    try:
        granted = _checked(opts, found, token)
    except InvalidToken as err:
        raise CommandExecutionError(f"break-glass refused: {err}") from err
    bound = {"machine": granted.machine, "nonce": granted.nonce, "boot_id": granted.boot_id, "until": granted.until}
    if bound != _challenge():
        raise CommandExecutionError(
            "break-glass refused: the token does not answer the last challenge of this machine; "
            f"run `salt-run fleet.break_glass {granted.machine}` again"
        )
    os.unlink(_run_path("challenge.json"))  # first, so that the token cannot be used a second time
    _write("glass", token)
    return granted


def end() -> bool:
    """Close this machine before the token expires; return False if it was not open."""
    try:
        os.unlink(_run_path("glass"))
    except FileNotFoundError:
        return False
    return True


def current_grant(opts: Mapping[str, Any]) -> Grant | None:
    """Return the grant that holds this machine open now, or None."""
    try:
        return _checked(opts, _seal(), seal.read_regular(_run_path("glass")))
    except (OSError, ValueError, InvalidToken, CommandExecutionError, seal.SealDamaged):
        return None


def seconds_left(granted: Grant) -> float:
    """Return for how many seconds a grant is still valid."""
    return max(0.0, granted.until - _now())


def _checked(opts: Mapping[str, Any], found: seal.Seal, token: str) -> Grant:
    """Return the grant of a token that is valid here and now; raise ``InvalidToken`` otherwise.

    The config may say where the master's key is, but the key must be the one that was pinned.
    """
    pinned = seal.pinned(found, seal.MACHINE_PATH)
    granted = verify(token, _master_key(os.path.join(opts["pki_dir"], "minion_master.pub"), pinned))
    if reason := mismatch(granted, pinned["id"], _boot(), _now()):
        raise InvalidToken(reason)
    if _in_time_namespace():
        raise InvalidToken("this process runs in a time namespace of its own, whose clock anybody could have set")
    return granted


def _master_key(path: str, pinned: Mapping[str, str]) -> bytes:
    """Return the master's public key in PEM, rebuilt from only what its fingerprint covers.

    Salt's fingerprint leaves out the first and the last line, and a second, complete key fits into the first line.
    """
    text = ""
    with suppress(OSError, ValueError):
        text = seal.read_regular(path)
    lines = [line for line in text.encode().split(b"\n") if line.strip()]
    body = b"".join(line.removesuffix(b"\r") + b"\n" for line in lines[1:-1])
    if not body or pem_finger(key=body, sum_type=pinned["hash_type"]) != pinned["master_finger"]:
        raise InvalidToken(f"the master's key ({path}) is not the one that was pinned when this machine was launched")
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"


def _seal() -> seal.Seal:
    return seal.required("there is nothing to open by break-glass")


def _challenge() -> Any:
    with suppress(OSError, ValueError):
        return json.loads(seal.read_regular(_run_path("challenge.json")))
    return None


def _run_path(name: str) -> str:
    return f"{seal.RUN_PATH}/{name}"


def _write(name: str, text: str) -> None:
    os.makedirs(seal.RUN_PATH, mode=0o700, exist_ok=True)
    write(Path(_run_path(name)), text, mode=0o600)


def _boot() -> str:
    """Return what names this boot of this machine: the kernel's id, and when init started, in ticks of the kernel.

    Root can mount an old id over the real one, so that a used token would open the machine again after a reboot.
    """
    if os.readlink(f"{_uncovered(f'/proc/{os.getpid()}/ns')}/pid") == _INITIAL_PID_NAMESPACE:
        _uncovered("/proc/sys/kernel/random/boot_id")  # containers have ids of their own there
    stat = Path(_uncovered("/proc/1/stat")).read_text(encoding="utf-8", errors="replace")
    return f"{this_boot()}-{stat.rpartition(')')[2].split()[19]}"


def _uncovered(path: str) -> str:
    """Return a path below /proc; raise CommandExecutionError where something is mounted over it."""
    if kernel.is_covered(path):
        raise CommandExecutionError(
            f"break-glass refused: something is mounted over {path}, so nobody can tell when this machine was started; "
            "replace the machine"
        )
    return path


def _in_time_namespace() -> bool:
    """Tell whether this process runs in another time namespace, whose creator sets ``CLOCK_BOOTTIME``."""
    try:
        return os.readlink(f"{_uncovered(f'/proc/{os.getpid()}/ns')}/time") != _INITIAL_TIME_NAMESPACE
    except FileNotFoundError:  # this kernel has no time namespaces
        return False


def _now() -> float:
    """Return seconds of ``CLOCK_BOOTTIME``: nobody can set it, and it also counts while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
