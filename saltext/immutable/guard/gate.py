"""The gate before every call on a sealed machine: ask the policy, count the answer, fire an event.

Standard library and Salt only. It is not imported on a host without a seal.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from saltext.immutable.guard import envelope, intake, policy, seal
from saltext.immutable.guard.function_tables import READS_FILES
from saltext.immutable.guard.reach import processes, secret_files, units

MAX_COUNTED = 200
"""How many functions are counted by name; calls of any further function are counted as OTHERS."""
OTHERS = "others"
NOT_INSTALLED = "this minion does not judge whole jobs yet: restart it (systemctl restart salt-minion)"
_LOCK_TRIES = 50
"""One every hundredth of a second."""


def refusal(
    opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str | None:
    """Return why a call may not run on this machine, or None.

    Every call that does more than read is counted, and the master gets an event.
    """
    try:
        sealed = _sealed(opts)
    except seal.SealDamaged as err:
        return policy.damaged(fun, str(err))
    if sealed is None:  # removed since the executor saw it
        return None
    if why := _envelope_refusal(data, fun):
        refused = policy.sentence(why, sealed)
        _record("refused", opts, data, fun, refused)
        return refused
    reason = _call_refusal(opts, fun, args, kwargs, sealed) or _mine_refusal(opts, fun, sealed)
    if reason is None:
        if policy.classify(fun, args, kwargs, sealed) == "operate":
            _record("operated", opts, data, fun)
        return None
    if _is_open(opts):
        _record("changed", opts, data, fun)
        return None
    _record("refused", opts, data, fun, reason)
    return reason


def _sealed(opts: Mapping[str, Any]) -> policy.Sealed | None:
    of_image, of_machine = seal.content(seal.SEAL_PATH), seal.content(seal.MACHINE_PATH)
    return None if of_image is None else _parsed(of_image, of_machine, opts.get("autoload_dynamic_modules", True))


@lru_cache(maxsize=1)
def _parsed(of_image: str, of_machine: str | None, syncs: bool) -> policy.Sealed:
    """Return what the texts of both files say. Files are read before each call; the same text is parsed once."""
    found, machine = seal.parsed(of_image, seal.SEAL_PATH), seal.machine_of(of_machine, seal.MACHINE_PATH)
    own = found.policy["guard"]
    return policy.Sealed(
        image=found.name,
        recipe=found.recipe,
        fleet=machine.get("fleet"),
        allow=tuple(own.get("allow", ())),
        deny=tuple(own.get("deny", ())),
        dry_runs=own.get("dry_runs", True),
        syncs=syncs,
    )


def _envelope_refusal(data: Mapping[str, Any], fun: str) -> str | None:
    """Return why a job is refused for its envelope (see `envelope`), whatever its function is; None for a salt-call."""
    if found := data.get(envelope.REFUSED):
        return str(found)
    if "tgt" in data and not intake.judges and fun not in policy.ALWAYS:
        return NOT_INSTALLED
    return None


def _call_refusal(
    opts: Mapping[str, Any], fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: policy.Sealed
) -> str | None:
    """Return why a call may not run, for what it is or for what it would reach on this machine."""
    return (
        policy.refusal(fun, args, kwargs, sealed)
        or _unit_refusal(fun, args, kwargs, sealed)
        or _process_refusal(fun, args, kwargs, sealed)
        or _secret_refusal(opts, fun, args, kwargs, sealed)
    )


def _mine_refusal(opts: Mapping[str, Any], fun: str, sealed: policy.Sealed) -> str | None:
    """Return why ``mine.update`` may not run: it calls the functions of config and pillar without any executor."""
    if fun != "mine.update":
        return None
    for called, args, kwargs in mine_functions(opts):
        if reason := _call_refusal(opts, called, args, kwargs, sealed):
            return f"{reason} (it is in mine_functions of the config or the pillar)"
    return None


def _unit_refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: policy.Sealed) -> str | None:
    """Return why a unit may not be operated: for another name of it, or because a part of it is not the image's."""
    if not policy.names_unit(fun) or not os.path.isdir("/run/systemd/system"):
        return None
    if not args and "name" not in kwargs:  # Salt itself asks for it
        return None
    name = str(policy.unit(args, kwargs))
    if why := units.unfit_alias(name, stops=policy.ends_unit(fun)):
        return policy.sentence(f"{fun} of {name}: {why}", sealed)
    found = units.foreign(name) if policy.operates_unit(fun) else None
    return policy.sentence(f"{fun} operates only units of the image, unlike {found}", sealed) if found else None


def _process_refusal(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: policy.Sealed) -> str | None:
    """Return why a signal may not be sent: it would reach systemd or the minion."""
    found = processes.protected(fun, args, kwargs)
    return policy.sentence(f"{fun} would signal {found}, without which this machine fails", sealed) if found else None


def _secret_refusal(
    opts: Mapping[str, Any], fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], sealed: policy.Sealed
) -> str | None:
    """Return why a file may not be read: it holds secrets of this machine."""
    if fun not in READS_FILES:
        return None
    place, keyword = READS_FILES[fun]
    path = args[place] if len(args) > place else kwargs.get(keyword)
    if not secret_files.is_secret(path, opts.get("pki_dir")):
        return None
    return policy.sentence(f"{fun} tells nothing of {path}: it holds secrets", sealed)


def mine_functions(opts: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any], Mapping[str, Any]]]:
    """Yield each call that ``mine.update`` would make: function, arguments, keyword arguments.

    Reads config and pillar as `salt.modules.mine.update` does.
    """
    pillar = opts.get("pillar") or {}
    for source in (opts, pillar, pillar.get("master") or {}):
        configured = source.get("mine_functions") or {}
        entries = configured.items() if isinstance(configured, Mapping) else ((name, None) for name in configured)
        for alias, given in entries:
            parts = list(given) if isinstance(given, list | tuple) else [given] if given else []
            args = [part for part in parts if not isinstance(part, Mapping)]
            kwargs = {key: value for part in parts if isinstance(part, Mapping) for key, value in part.items()}
            called = str(kwargs.pop("mine_function", alias))
            yield called, args, {key: value for key, value in kwargs.items() if key != "allow_tgt"}


def _is_open(opts: Mapping[str, Any]) -> bool:
    """Tell whether a break-glass token opens this machine now."""
    if not os.path.lexists(f"{seal.RUN_PATH}/glass"):
        return False
    from saltext.immutable.guard import break_glass

    return break_glass.current_grant(opts) is not None


def _record(outcome: str, opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, reason: str = "") -> None:
    """Count a call and fire its event; a failure to do so does not change the guard's answer.

    ``outcome``: ``refused``, ``operated`` or ``changed``.
    """
    with suppress(Exception):  # anything may lie where the counts are kept
        _count(outcome, fun)
    with suppress(Exception):  # no minion may run here, as with `salt-call --local`
        _fire(opts, f"immutable/{outcome}", _event_data(opts, data, fun, reason))


def _event_data(opts: Mapping[str, Any], data: Mapping[str, Any], fun: str, reason: str) -> dict[str, Any]:
    import salt.utils.user

    user = data.get("user") or salt.utils.user.get_specific_user()
    event = {"id": opts.get("id"), "fun": fun, "user": user, "jid": data.get("jid")}
    return event | ({"reason": reason} if reason else {})


def _fire(opts: Mapping[str, Any], tag: str, data: Mapping[str, Any]) -> None:
    """Hand an event to the minion of this machine, which sends it to the master."""
    import salt.utils.event

    with salt.utils.event.get_event("minion", opts=dict(opts), listen=False) as bus:
        bus.fire_event({"tag": tag, "data": data, "events": None, "pretag": None}, "fire_master", timeout=500)


def counts() -> dict[str, dict[str, int]]:
    """Return how many calls were refused, operated and changed since the boot: outcome to function to number."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(seal.read_regular(f"{seal.RUN_PATH}/counts.json"))
        return found if isinstance(found, dict) else {}
    return {}


def _count(outcome: str, fun: str) -> None:
    os.makedirs(seal.RUN_PATH, mode=0o700, exist_ok=True)
    with open(f"{seal.RUN_PATH}/counts.json", "a+", encoding="utf-8") as file:
        _lock(file.fileno())
        file.seek(0)
        text = file.read()
        found = json.loads(text) if text else {}
        by_function = found.setdefault(outcome, {})
        name = fun if fun in by_function or len(by_function) < MAX_COUNTED else OTHERS
        by_function[name] = by_function.get(name, 0) + 1
        file.truncate(0)
        file.write(json.dumps(found))


def _lock(fd: int) -> None:
    """Wait half a second at most for another process that counts, so that nobody can block calls with this lock."""
    for _ in range(_LOCK_TRIES):
        with suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    raise BlockingIOError("another process holds the lock of the counts")
