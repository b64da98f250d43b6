"""Answers that a minion proves with its key; what another one sent under its id is ignored."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from salt.client import LocalClient
from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.guard import proof
from saltext.immutable.host import tail
from saltext.immutable.minions.keys import accepted_key

ANSWER_WITHIN = 5
"""Seconds without an answer after which a minion is asked whether the job still runs."""
OLD_WITHIN = 3.0
"""Seconds within which a minion of which it is said that it can prove nothing may prove the contrary."""
MAX_DIGITS = 20
"""Digits that a number of an answer may have."""
_UNPROVEN = "does not prove its answers with its key"
_OLD = "its image has an older version of this pack; the next roll replaces it"


class NoAnswer(CommandExecutionError):  # type: ignore[misc]
    """A machine did not answer, so its health is unknown."""


class Unproven(NoAnswer):
    """Answers came under the id of a machine, but none with the proof that it gave them."""


class Outdated(Unproven):
    """A machine says that it has no function to prove its answers: its image has an older version of this pack."""


def answers(
    client: LocalClient,
    another: Callable[[], LocalClient],
    opts: Mapping[str, Any],
    minion_id: str,
    asked: str,
    within: float,
    forged: Callable[[str], None],
) -> list[Any]:
    """Return the answers of ``immutable.answer``; what is not signed with the minion's accepted key is ignored.

    ``another`` returns one more client, with a bus of its own. ``asked``: the questions as JSON. ``within``: seconds.
    ``forged`` is called with the id of this minion for each answer that another one may have given. Raises ``NoAnswer``
    if no proven answer came in time, or one that is no list of answers.
    """
    key = accepted_key(opts, minion_id)
    if key is None:
        raise NoAnswer(
            f"{minion_id} has no accepted key on this master; replace that machine (salt-run fleet.reconcile all does)"
        )
    unproven: Unproven | None = None
    with closing(_events(client, minion_id, asked, within, key)) as events:
        for answer, proven in events:
            if proven is not None:
                return _parsed(minion_id, proven)
            if _is_old(answer) and not _proves(another(), minion_id, key):
                raise Outdated(f"{minion_id} {_UNPROVEN}: {_OLD}")
            unproven = Unproven(
                f"{minion_id} {_UNPROVEN}: another minion may have answered in its place; find that one, or replace "
                "this machine (salt-run fleet.replace)"
            )
            forged(minion_id)
    raise unproven or NoAnswer(f"{minion_id} does not answer; see whether its salt-minion runs and reaches this master")


def _proves(client: LocalClient, minion_id: str, key: bytes) -> bool:
    """Tell whether a minion proves anything at all: any other one can say in its name that it has no such function."""
    try:
        with closing(_events(client, minion_id, "[]", OLD_WITHIN, key)) as events:
            return any(proven is not None for _, proven in events)
    except NoAnswer:
        return False


def _events(
    client: LocalClient, minion_id: str, asked: str, within: float, key: bytes
) -> Generator[tuple[Any, str | None], None, None]:
    """Ask a minion, and yield what comes back under its id within so many seconds.

    Each is what was returned, and the answers as JSON, None unless the minion proves them.
    """
    deadline, nonce = time.monotonic() + within, proof.new_nonce()
    try:
        client.event.connect_pub(timeout=ANSWER_WITHIN)  # before the job, or the answer could be missed
        options = {"timeout": ANSWER_WITHIN, "kwarg": {"nonce": nonce, "asked": asked}}
        job = client.run_job(minion_id, "immutable.answer", [], "list", **options)
        tag = f"salt/job/{job.get('jid')}/ret/{minion_id}"
        while job and (left := deadline - time.monotonic()) > 0:  # get_event takes 0 for no limit
            event = client.event.get_event(left, tag, match_type="startswith")
            if event is None:
                return
            answer = event.get("return") if isinstance(event, Mapping) else None
            found = answer if isinstance(answer, Mapping) else {}
            holds = proof.holds(found.get("proof"), nonce, minion_id, asked, found.get("answers"), key)
            yield answer, found["answers"] if holds else None
    except (SaltClientError, SaltReqTimeoutError, OSError) as err:
        raise NoAnswer(f"{minion_id} cannot be reached: {err}; see whether salt-master runs, and repeat") from err
    finally:
        client.event.close_pub()


def _parsed(minion_id: str, proven: str) -> list[Any]:
    """Return the answers in a text that a minion signed. The minion itself may be the attacker: any text may come."""
    try:
        found = json.loads(proven, parse_constant=_finite, parse_float=_finite, parse_int=_short)
    except (ValueError, RecursionError) as err:
        wrong = tail(str(err), 1)[:200]
        raise NoAnswer(f"{minion_id}: immutable.answer returned no JSON: {wrong}; replace that machine") from err
    if not isinstance(found, list):
        raise NoAnswer(f"{minion_id}: immutable.answer returned no list; replace that machine")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _is_old(answer: Any) -> bool:
    """Tell whether a minion says that it does not have ``immutable.answer``."""
    return isinstance(answer, str) and "immutable.answer" in answer and "not available" in answer
