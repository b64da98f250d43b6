"""Answers that a minion proves with its key; what another one sent under its id is ignored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from salt.client import LocalClient
from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.guard import proof
from saltext.immutable.minions.keys import accepted_key

ANSWER_WITHIN = 5
"""Seconds without an answer after which a minion is asked whether the job still runs."""
OLD_WITHIN = 3.0
"""Seconds for which a proof is awaited after an answer that the minion has no function to make one."""
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
    opts: Mapping[str, Any],
    minion_id: str,
    asked: str,
    within: float,
    forged: Callable[[str], None],
) -> list[Any]:
    """Return the answers of ``immutable.answer``; what is not signed with the minion's accepted key is ignored.

    ``asked``: the questions as JSON. ``within``: seconds. ``forged`` is called with the id of this minion for each
    answer that another one may have given. Raises ``NoAnswer`` if no proven answer came in time.
    """
    deadline, nonce = time.monotonic() + within, proof.new_nonce()
    key = accepted_key(opts, minion_id)
    if key is None:
        raise NoAnswer(f"{minion_id} has no accepted key on this master")
    unproven: Unproven | None = None
    try:
        client.event.connect_pub(timeout=ANSWER_WITHIN)  # before the job, or the answer could be missed
        options = {"timeout": ANSWER_WITHIN, "kwarg": {"nonce": nonce, "asked": asked}}
        job = client.run_job(minion_id, "immutable.answer", [], "list", **options)
        tag = f"salt/job/{job.get('jid')}/ret/{minion_id}"
        while job and (left := deadline - time.monotonic()) > 0:  # get_event takes 0 for no limit
            event = client.event.get_event(left, tag, match_type="startswith")
            answer = event.get("return") if isinstance(event, Mapping) else None
            found = answer if isinstance(answer, Mapping) else {}
            if proof.holds(found.get("proof"), nonce, minion_id, asked, found.get("answers"), key):
                return list(json.loads(found["answers"]))
            if event is None:
                break
            if _is_old(answer):
                unproven = Outdated(f"{minion_id} {_UNPROVEN}: {_OLD}")
                deadline = min(deadline, time.monotonic() + OLD_WITHIN)
            else:
                unproven = Unproven(f"{minion_id} {_UNPROVEN}: another minion may have answered in its place")
                forged(minion_id)
    except (SaltClientError, SaltReqTimeoutError, OSError) as err:
        raise NoAnswer(f"{minion_id} cannot be reached through the master: {err}") from err
    finally:
        client.event.close_pub()
    raise unproven or NoAnswer(f"{minion_id} does not answer")


def _is_old(answer: Any) -> bool:
    """Tell whether a minion says that it does not have ``immutable.answer``."""
    return isinstance(answer, str) and "immutable.answer" in answer and "not available" in answer
