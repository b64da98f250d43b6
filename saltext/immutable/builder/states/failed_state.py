"""Add to the comment of a state that failed what Salt says of it elsewhere: in its log, and of functions it lacks.

Runs in the machine that bakes, which is gone when an operator reads the comment.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from saltext.immutable.host import tail

_LINES = 10
"""Lines of Salt's log in a comment, the last ones."""
_LACKED = re.compile(r"KeyError: '(\w+\.\w+)'\s*$")
"""How a state ends that calls a function of a module that is not there."""
_BUSY = re.compile(r"\[Errno 16\] [^:\n]*: '(/[^'\n]*)'")
"""How a state ends that removes what is mounted: ``clean`` of a folder where a file of the bake is."""
_RETCODE = "retcode: "
_TITLE = re.compile(r"^(?:stdout|stderr|output): ?")
"""What Salt puts before the output of a command in its log."""
_CONFIG_CHECKS: Mapping[str, tuple[str, ...]] = {
    "apache2.service": ("apache2ctl", "configtest"),
    "haproxy.service": ("haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"),
    "named.service": ("named-checkconf",),
    "nginx.service": ("nginx", "-t"),
    "postfix.service": ("postfix", "check"),
    "rsyslog.service": ("rsyslogd", "-N1"),
    "ssh.service": ("sshd", "-t"),
    "unbound.service": ("unbound-checkconf",),
}
"""What says what is wrong in the config of a service. Units often run it, some so that it says nothing (``-q``)."""


class _Errors(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """Yield a list to which each error is added that is logged meanwhile."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.messages
    finally:
        logging.getLogger().removeHandler(handler)


def explained(result: dict[str, Any], errors: Sequence[str], functions: Any) -> dict[str, Any]:
    """Return the result of a state; if it failed, with what its comment and its changes do not say yet.

    ``errors``: what was logged meanwhile. ``functions``: Salt's execution modules, a LazyLoader.
    """
    if result.get("result") is not False:
        return result
    comment, changes = str(result.get("comment") or ""), result.get("changes")
    if lacked := _LACKED.search(comment):
        more = f"{lacked[1]} cannot be called: {functions.missing_fun_string(lacked[1])}"
    elif (busy := _BUSY.search(comment)) and os.path.ismount(busy[1]):
        more = (
            f"The bake has {busy[1]} mounted there, and no layer keeps it; leave it out of what the state cleans "
            f"(exclude_pat: {os.path.basename(busy[1])})"
        )
    elif isinstance(changes, Mapping) and "retcode" in changes:  # a command, whose output they have
        more = ""
    else:
        values = changes.values() if isinstance(changes, Mapping) else [changes]
        more = _new(errors, "\n".join([comment, *map(str, values)]))
    return {**result, "comment": f"{comment}\n{more}"} if more else result


def _new(errors: Sequence[str], known: str) -> str:
    """Return a heading and the last lines of what was logged and is not known; '' if all is."""
    new = [error.strip() for error in errors if not _is_known(error, known)]
    return "\n".join(["Salt's log says:", tail("\n".join(dict.fromkeys(new)), _LINES)]) if new else ""


def _is_known(error: str, known: str) -> bool:
    return error.startswith(_RETCODE) or _TITLE.sub("", error).strip() in known


def config_errors(unit: str) -> str:
    """Return what the check of a service's config says that is wrong; '' if nothing, or if none is known."""
    command = _CONFIG_CHECKS.get(unit)
    if command is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = f"{done.stdout}{done.stderr}".strip()
    return f"`{' '.join(command)}` says:\n{tail(said, _LINES)}" if done.returncode and said else ""
