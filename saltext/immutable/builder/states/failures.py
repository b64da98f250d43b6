"""What an operator is told of states that failed in a bake. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from saltext.immutable import rendering
from saltext.immutable.host import tail
from saltext.immutable.state_names import name_of_result

Where = Callable[[str, str], str]
_WORD = r"""('[^'\n]+'|"[^"\n]+"|\[[^\]\n]+\]|[^\s'"\[]+)"""
_STATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:ID|[Ss]tate) (?P<id>{_WORD}),? in\s+SLS (?P<sls>{_WORD})",
        rf"'SLS': (?P<sls>{_WORD}), 'ID': (?P<id>{_WORD})",
        rf"ID is (?P<id>{_WORD}) and is found in SLS (?P<sls>{_WORD})(?: and SLS (?P<other>{_WORD}))?",
        rf"Cannot extend ID (?P<id>{_WORD}) in (?P<sls>{_WORD})",
    )
)
"""How Salt names a state, in errors of states that it does not run."""
_MISSING = re.compile(r"Specified SLS (\S+) in saltenv")
_NOT_RUN = "One or more requisite failed"
_UNKNOWN = re.compile(r"State '[^']*' was not found in SLS '([^']+)'")
"""What Salt says of a function that it does not have. Such a result has no SLS of its own."""
_LINES = 10
"""Lines of a command's output in the message."""


def describe(
    result: Mapping[str, Any], where: Where = lambda sls, state_id: "", hints: Collection[str] = ()
) -> str:
    """Return the message about a highstate in which states failed: how many, and what each of them says.

    ``result``: what Salt returns of each state. States that did not run because of another one are counted only.
    ``where``: returns file and line of a state (SLS and id), or ''. ``hints``: sentences on what may have failed them.
    """
    failed = {name: state for name, state in result.items() if not state["result"]}
    not_run = {name for name, state in failed.items() if str(state.get("comment", "")).startswith(_NOT_RUN)}
    own = sorted(failed.keys() - not_run, key=lambda name: (failed[name].get("__run_num__", 0), name))
    more = f", and {len(not_run)} that need them did not run" if not_run else ""
    count = f"{len(own)} of {len(result)} states failed in the bake{more}; correct them, and bake again"
    return "\n".join([f"{count}:", *(_state(name, failed[name], where) for name in own), *hints])


def line_of(state_id: str, text: str) -> int | None:
    """Return the number of the only line of a state file at which a state begins; None if that is not certain."""
    begins = re.compile(rf"\s*(['\"]?){re.escape(state_id)}\1\s*:")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if begins.match(line)]
    return lines[0] if len(lines) == 1 else None


def named_states(errors: str) -> list[tuple[str, str]]:
    """Return SLS and id of the states that errors of Salt name, each once."""
    found = [each for pattern in _STATES for each in pattern.finditer(errors)]
    named = [(each.groupdict().get(sls), each["id"]) for each in found for sls in ("sls", "other")]
    return list(dict.fromkeys((_bare(sls).rpartition(":")[2], _bare(state_id)) for sls, state_id in named if sls))


def _bare(word: str) -> str:
    return word[1:-1] if word[0] in "'\"[" else word


def missing_sls(errors: str) -> list[str]:
    """Return the names of the SLS that errors of Salt say are not there."""
    return list(dict.fromkeys(_MISSING.findall(errors)))


def changed_again(result: Mapping[str, Any], left: Collection[str]) -> dict[str, str]:
    """Return the states that would change something when they are applied again: name to comment.

    ``result``: what Salt returns of each state in a dry run. ``left``: states that left something to the boot.
    """
    in_order = sorted(result.items(), key=lambda item: (item[1].get("__run_num__", 0), item[0]))
    changed = [(tag, one) for tag, one in in_order if one["result"] is not True or one.get("changes")]
    found = {name_of_result(tag, one): one for tag, one in changed}
    return {name: _comment(state) for name, state in found.items() if name not in left}


def describe_changed(found: Mapping[str, str]) -> str:
    """Return the message about states that would change something when they are applied again, '' if there are none.

    ``found``: the result of `changed_again`.
    """
    lines = ["\n".join([f"- {name}", *_indented(comment)]) for name, comment in found.items()]
    return "\n".join(["states that would change something each time:", *lines]) if lines else ""


def _state(name: str, state: Mapping[str, Any], where: Where) -> str:
    """Return what is known of a failed state: id, function, SLS, line, name; comment; the last lines of its output."""
    state_id, comment = [*name.split("_|-"), ""][1], _comment(state)
    if unknown := _UNKNOWN.match(comment):
        state = {**state, "__sls__": unknown[1]}
    place = where(str(state.get("__sls__") or ""), str(state.get("__id__") or state_id))
    lines = [f"- {name_of_result(name, state)}{f', at {place}' if place else ''}", *_indented(comment)]
    changes = state.get("changes") or {}
    for stream in ("stdout", "stderr"):
        if output := str(changes.get(stream) or "" if isinstance(changes, Mapping) else "").strip():
            lines += _indented(f"{stream}: {tail(output, _LINES)}")
    if isinstance(changes, Mapping) and changes.get("retcode"):
        lines += _indented(f"exit code {changes['retcode']}")
    return "\n".join(lines)


def _comment(state: Mapping[str, Any]) -> str:
    """Return what a state says of itself, of an exception in it no traceback."""
    return rendering.readable(str(state.get("comment") or "")).strip()


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
