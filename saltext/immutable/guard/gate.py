"""What stands before every call on a sealed machine: the guard is asked, and what it says is counted and told.

Standard library and Salt only; nothing here is imported on a host without a seal.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from saltext.immutable.guard import policy, seal

_NAMES = 200
"""Functions that are counted by name; who calls others finds them under OTHERS."""
OTHERS = "others"
_PATIENCE = 50
"""Hundredths of a second."""


def refusal(
    opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Return why a call may not run here, or None; count and tell whatever does not only read."""
    try:
        sealed = _sealed(opts)
    except seal.SealDamaged as err:
        return policy.damaged(fun, str(err))
    if sealed is None:  # removed since we looked
        return None
    reason = policy.refusal(fun, args, kwargs, sealed) or _of_the_mine(opts, fun, sealed)
    if reason is None:
        if policy.classify(fun, args, kwargs, sealed) == "operate":
            _note("operated", opts, data, fun)
        return None
    if _glass_is_broken(opts):
        _note("changed", opts, data, fun)
        return None
    _note("refused", opts, data, fun, reason)
    return reason


def _sealed(opts: Mapping[str, Any]) -> policy.Sealed | None:
    found, machine = seal.read(seal.SEAL_PATH), seal.machine(seal.MACHINE_PATH)
    if found is None:
        return None
    own = found.policy["guard"]
    return policy.Sealed(
        image=found.name,
        recipe=found.recipe,
        fleet=machine.get("fleet"),
        allow=tuple(own.get("allow", ())),
        deny=tuple(own.get("deny", ())),
        dry_runs=own.get("dry_runs", True),
        syncs=opts.get("autoload_dynamic_modules", True),
    )


def _of_the_mine(opts: Mapping[str, Any], fun: str, sealed: policy.Sealed) -> str | None:
    """``mine.update`` calls what config and pillar name, past every executor."""
    if fun != "mine.update":
        return None
    for called, args, kwargs in mine_functions(opts):
        if reason := policy.refusal(called, args, kwargs, sealed):
            return f"{reason} (mine_functions of config or pillar name it)"
    return None


def mine_functions(opts: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any], Mapping[str, Any]]]:
    """Yield what the mine calls, as `salt.modules.mine.update` reads it: function, arguments, keywords."""
    pillar = opts.get("pillar") or {}
    for source in (opts, pillar, pillar.get("master") or {}):
        wanted = source.get("mine_functions") or {}
        named = wanted.items() if isinstance(wanted, Mapping) else ((name, None) for name in wanted)
        for alias, given in named:
            parts = list(given) if isinstance(given, list | tuple) else [given] if given else []
            args = [part for part in parts if not isinstance(part, Mapping)]
            kwargs = {key: value for part in parts if isinstance(part, Mapping) for key, value in part.items()}
            called = str(kwargs.pop("mine_function", alias))
            yield called, args, {key: value for key, value in kwargs.items() if key != "allow_tgt"}


def _glass_is_broken(opts: Mapping[str, Any]) -> bool:
    if not os.path.lexists(f"{seal.RUN_PATH}/glass"):
        return False
    from saltext.immutable.guard import break_glass

    return break_glass.grant(opts) is not None


def _note(what: str, opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, reason: str = "") -> None:
    """Count and tell; a machine that cannot do so refuses all the same."""
    with suppress(Exception):  # whatever lies where it counts
        _count(what, fun)
    with suppress(Exception):  # nobody may be there to hear it, as with `salt-call --local`
        _tell(opts, f"immutable/{what}", _told(opts, data, fun, reason))


def _told(opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, reason: str) -> dict[str, Any]:
    import salt.utils.user

    user = data.get("user") or salt.utils.user.get_specific_user()
    told = {"id": opts.get("id"), "fun": fun, "user": user, "jid": data.get("jid")}
    return told | ({"reason": reason} if reason else {})


def _tell(opts: Mapping[str, Any], tag: str, data: Mapping[str, Any]) -> None:
    """Hand an event to the minion that runs here, which sends it to the master."""
    import salt.utils.event

    with salt.utils.event.get_event("minion", opts=dict(opts), listen=False) as bus:
        bus.fire_event({"tag": tag, "data": data, "events": None, "pretag": None}, "fire_master", timeout=500)


def counts() -> dict[str, dict[str, int]]:
    """Return how often what was refused, operated and changed since the boot, by function."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(seal.regular(f"{seal.RUN_PATH}/counts.json"))
        return found if isinstance(found, dict) else {}
    return {}


def _count(what: str, fun: str) -> None:
    os.makedirs(seal.RUN_PATH, mode=0o700, exist_ok=True)
    with open(f"{seal.RUN_PATH}/counts.json", "a+", encoding="utf-8") as file:
        _lock(file.fileno())
        file.seek(0)
        text = file.read()
        found = json.loads(text) if text else {}
        of_kind = found.setdefault(what, {})
        name = fun if fun in of_kind or len(of_kind) < _NAMES else OTHERS
        of_kind[name] = of_kind.get(name, 0) + 1
        file.truncate(0)
        file.write(json.dumps(found))


def _lock(fd: int) -> None:
    """Wait for others that count, but not for one who only holds us up."""
    for _ in range(_PATIENCE):
        with suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    raise BlockingIOError("somebody else holds it")
