"""The envelope of a job: everything in it except its function and arguments. Pure.

Salt itself acts on the envelope, before and after the executor and even if that refused the call: it names a file after
the job id, calls the returners, takes the executors that the job names. So each job is judged as the minion receives
it: fields that Salt does not know are left out, and what is not allowed is replaced, so that it has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

REFUSED = "immutable_refused"
"""The field that tells the executor why a job is refused. A job that comes with this field is refused too."""

_FIELDS = """
    arg delimiter executor_opts fun id jid master_id metadata minion_is_target module_executors pure_resource_target
    resource_job resource_target resource_targets ret ret_config ret_kwargs start_event tgt tgt_type to user
    __ignore_process_count_max
"""
FIELDS = frozenset(_FIELDS.split())
"""What a master of Salt 3007 or 3008 puts into a job, and what the minion adds."""
EXECUTORS = frozenset({"direct_call", "splay", "sudo"})
"""The executors that ask the guard. (``transactional_update`` and ``docker`` run the call elsewhere.)"""
MAX_METADATA = 10_000
"""Characters."""
MAX_LINE = 200
"""Characters of a name: of the user, the master, a minion or a resource."""

_JOB_ID = re.compile(r"[0-9]{20}(_[0-9]{1,10})?|req")
"""As `salt.utils.jid.gen_jid` makes it. ``req``: a job of the minion itself, to which the master gives an id."""
_FLAGS = "minion_is_target pure_resource_target resource_job start_event __ignore_process_count_max"
_FUNCTION = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_WORD = re.compile(r"[A-Za-z0-9_]{1,100}")


def checked(load: Mapping[str, Any], returners: Collection[str], new_id: str) -> dict[str, Any]:
    """Return a job in which only what is allowed has an effect; with the field REFUSED, why the rest was not allowed.

    ``returners``: those that the recipe allows. ``new_id``: the id for a job whose own id is none.
    """
    found = {name: value for name, value in load.items() if name in FIELDS and _SHAPES.get(name, _any)(value)}
    found.setdefault("ret", "")
    reasons = [
        _id(found, new_id),
        _function(found),
        _returner(found, returners),
        _executors(found),
        _metadata(found),
    ]
    reason = next(filter(None, reasons), None)
    if REFUSED in load:  # it was judged before, and waited on the disk
        reason = str(load[REFUSED])
    if reason:
        found[REFUSED] = reason
    return found


def _id(load: dict[str, Any], new_id: str) -> str | None:
    if isinstance(load.get("jid"), str) and _JOB_ID.fullmatch(load["jid"]):
        return None
    load["jid"] = new_id
    return "its job id is not a Salt job id, and Salt names files after it"


def _function(load: dict[str, Any]) -> str | None:
    """Check that the job names functions, and has a list of arguments for each."""
    fun, arg = load.get("fun"), load.get("arg")
    names = list(fun) if isinstance(fun, list | tuple) else [fun]
    named = bool(names) and all(isinstance(name, str) and _FUNCTION.fullmatch(name) for name in names)
    lists = list(arg) if isinstance(fun, list | tuple) and isinstance(arg, list | tuple) else [arg]
    if named and len(lists) == len(names) and all(isinstance(one, list | tuple) for one in lists):
        return None
    load["fun"], load["arg"] = "test.ping", []
    return "it names no function, or does not list its arguments"


def _returner(load: dict[str, Any], returners: Collection[str]) -> str | None:
    """Check ``ret``, and the options for returners; take them out if one of them is not allowed."""
    ret, config = load["ret"], load.get("ret_config")
    names = ret.split(",") if isinstance(ret, str) and ret else []
    reason = None
    if not isinstance(ret, str):
        reason = "its returner is not a name"
    elif wrong := next((name for name in names if name not in returners), None):
        reason = f"the returner {wrong[:40]!r} would run past the guard (recipe: guard: returners)"
    elif load.get("ret_kwargs"):
        reason = "ret_kwargs would let the caller choose what a returner writes, and where"
    elif config and not (isinstance(config, str) and _WORD.fullmatch(config)):
        reason = "ret_config takes the name of a returner's config in this image"
    if reason or not names:
        load["ret"] = ""
        load.pop("ret_config", None)
    load.pop("ret_kwargs", None)
    return reason


def _executors(load: dict[str, Any]) -> str | None:
    named, options = load.get("module_executors") or [], load.get("executor_opts") or {}
    names = [named] if isinstance(named, str) else named
    reason = None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name in EXECUTORS for name in names):
        reason = f"its executors are not among those that ask the guard ({', '.join(sorted(EXECUTORS))})"
    elif not isinstance(options, Mapping) or set(options) - {"splaytime"} or not all(map(_is_time, options.values())):
        reason = "executor_opts takes splaytime in seconds only"
    if reason:
        load.pop("module_executors", None)
        load.pop("executor_opts", None)
    return reason


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400


def _metadata(load: dict[str, Any]) -> str | None:
    """Check the data that Salt copies from the job into the answer."""
    metadata = load.get("metadata")
    with suppress(RecursionError):
        if metadata is None or (isinstance(metadata, Mapping) and len(repr(metadata)) <= MAX_METADATA):
            return None
    del load["metadata"]
    return f"its metadata is not a mapping of at most {MAX_METADATA} characters"


def _any(value: object) -> bool:
    return True


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_line(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LINE and value.isprintable()


def _is_target(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(map(_is_line, value)))


def _is_resource(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"id", "type"} and all(map(_is_line, value.values()))


def _are_resources(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_resource, value))


_SHAPES: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("delimiter", "id", "master_id", "tgt_type", "user"), _is_line),
    **dict.fromkeys(_FLAGS.split(), _is_flag),
    "resource_target": _is_resource,
    "resource_targets": _are_resources,
    "tgt": _is_target,
    "to": _is_time,
}
"""What a field must be to stay in the job; the others are judged by a function each."""
