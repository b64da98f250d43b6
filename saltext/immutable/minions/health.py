"""Health of a machine: its image by ``immutable.status``, and its health checks by Salt function or HTTP."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable import systemd
from saltext.immutable.minions.proven_answers import NoAnswer
from saltext.immutable.spec.model import STATES_CHECK, FunctionCheck

STATUS_CALL = FunctionCheck("immutable.status")
_ABSENT, _REFUSED = f"{STATES_CHECK.fun} is not available", "sealed: "
"""What machines of former versions answer, and how a refusal of their guard begins: it does not know the function, or
their recipe denies it. The guard of this version always lets it through."""
_NAMED = 5
"""Services that one sentence names."""
_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})\b ?(.*)")


class LaunchFailed(CommandExecutionError):  # type: ignore[misc]
    """The launch phase of a machine failed. It does not help to wait longer."""


def image(minion_id: str, status: Any) -> str:
    """Return the digest of the image in an answer of ``immutable.status``; '' if the machine runs none.

    Raises ``NoAnswer`` while its launch phase runs, ``LaunchFailed`` if that failed.
    """
    digest = status.get("digest") or "" if isinstance(status, Mapping) else None
    if not isinstance(digest, str):
        raise NoAnswer(f"{minion_id}: immutable.status returned {status!r}")
    _require_launched(status.get("launched", True))
    return digest


def unhealthy(check: FunctionCheck, answer: Any) -> str | None:
    """Return why the answer to a check does not pass, or None if it does; ``answer``: the result, or the error."""
    if check == STATES_CHECK:
        return _not_as_declared(answer)
    if isinstance(answer, CommandExecutionError):
        return str(answer)
    return None if answer else f"{check.fun} {' '.join(map(str, check.args))} returned {answer!r}"


def _not_as_declared(answer: Any) -> str | None:
    """Return which services do not run that the states of the image declare running, or None.

    ``answer``: of ``immutable.services``, which images of former versions do not have.
    """
    if isinstance(answer, CommandExecutionError):
        return None if _ABSENT in str(answer) or _REFUSED in str(answer) else str(answer)
    if not isinstance(answer, Mapping):
        return f"immutable.services returned {answer!r}"
    found = [(unit, str(state)) for unit, state in answer.items() if not systemd.runs(str(state))]
    wrong = [f"{unit} is {state}" for unit, state in found[:_NAMED]]
    wrong += [f"{len(found) - _NAMED} more are not active"] if len(found) > _NAMED else []
    return f"{', '.join(wrong)}, but the states of its image want it running" if wrong else None


def _require_launched(launched: Any) -> None:
    """Raise unless the launch phase succeeded."""
    if isinstance(launched, str):
        raise LaunchFailed(launched)
    if launched is not True:
        raise NoAnswer("its launch phase has not ended")


def http(url: str, within: float) -> str | None:
    """Return why a URL does not answer 2xx or 3xx within so many seconds, or None if it does.

    Only the status counts; redirects are not followed. Raises ``NoAnswer`` if there was no answer.
    """
    try:
        line = asyncio.run(asyncio.wait_for(_status_line(urllib.parse.urlsplit(url)), within))
    except ConnectionRefusedError:
        return f"{url}: {os.strerror(errno.ECONNREFUSED)}"
    except asyncio.TimeoutError as err:
        raise NoAnswer(f"{url}: no answer within {within:g} s") from err
    except (OSError, ValueError) as err:
        raise NoAnswer(f"{url}: {err}") from err
    status = _STATUS_LINE.match(line)
    if status is None:
        raise NoAnswer(f"{url} answers {line!r}")
    return None if status[1][:1] in b"23" else f"{url} answers {status[1].decode()} {status[2].decode('latin-1')}"


async def _status_line(url: urllib.parse.SplitResult) -> bytes:
    """Request a URL from the machine directly: a proxy could answer in its place."""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure or None)
    try:
        target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        headers = f"Host: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: saltext-immutable\r\nConnection: close"
        writer.write(f"GET {target} HTTP/1.1\r\n{headers}\r\n\r\n".encode("ascii"))
        return (await reader.readline()).rstrip()
    finally:
        writer.transport.abort()
