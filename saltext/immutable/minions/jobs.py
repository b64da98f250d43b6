"""Salt jobs on single minions."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import salt.client
import salt.utils.event
from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.host import tail
from saltext.immutable.spec.model import FunctionCheck

ANSWER_WITHIN = 5
"""Seconds without an answer after which a minion is asked whether the job still runs."""


class NoAnswer(CommandExecutionError):  # type: ignore[misc]
    """A machine did not answer, so its health is unknown."""


class Client(salt.client.LocalClient):  # type: ignore[misc]
    """Salt's client, except that it does not print ``no minions matched``: standard output is for results only."""

    def _check_pub_data(self, pub_data: Any, listen: bool = True) -> dict[str, Any]:
        if isinstance(pub_data, Mapping) and ("error" in pub_data or not pub_data.get("minions")):
            return {}
        return dict(super()._check_pub_data(pub_data, listen=listen))


class Jobs:
    """Jobs on single minions. Any thread may call; each has a client of its own, since threads cannot share one."""

    def __init__(self, opts: Mapping[str, Any], answer_within: int = ANSWER_WITHIN) -> None:
        self._opts = {**opts, "gather_job_timeout": answer_within}
        self._answer_within = answer_within
        self._clients = threading.local()
        self._loading = threading.Lock()
        self._loaded: Client | None = None

    def run(self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run one function to its end, however long that takes, and return its result.

        Raises ``NoAnswer`` if the minion neither answers nor still runs the job, ``CommandExecutionError`` if the
        function failed.
        """
        options = {"kwarg": dict(kwargs or {}), "full_return": True}
        try:
            done = self._client().cmd(minion_id, fun, list(args), self._answer_within, "list", **options)
        except (SaltClientError, SaltReqTimeoutError) as err:
            raise NoAnswer(f"{minion_id} cannot be reached through the master: {err}") from err
        answer = done.get(minion_id) if isinstance(done, dict) else None
        # For a minion that does not answer, Salt returns a text as the result.
        if not isinstance(answer, dict) or "ret" not in answer or answer.get("out") == "no_return":
            raise NoAnswer(f"{minion_id} does not answer")
        return _returned(minion_id, fun, answer["ret"], answer)

    def ask(
        self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None, *, within: float
    ) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result; raises as ``run`` does."""
        answer = self._job(minion_id, fun, list(args), dict(kwargs or {}), within)
        return _returned(minion_id, fun, answer["return"], answer)

    def ask_all(self, minion_id: str, calls: Sequence[FunctionCheck], *, within: float) -> list[Any]:
        """Run several functions in one job, which starts only one process on the minion, and return their results.

        The functions must have different names. The result of one that failed is the ``CommandExecutionError`` itself.
        """
        arguments = [[*call.args, *([{"__kwarg__": True, **call.kwargs}] if call.kwargs else [])] for call in calls]
        answer = self._job(minion_id, [call.fun for call in calls], arguments, {}, within)
        return [_one_of(minion_id, call.fun, answer) for call in calls]

    def _job(
        self, minion_id: str, fun: str | list[str], args: list[Any], kwargs: dict[str, Any], within: float
    ) -> Mapping[str, Any]:
        """Run a job, and return the data of the minion's return event."""
        deadline = time.monotonic() + within
        client = self._client()
        options = {"timeout": ANSWER_WITHIN, "kwarg": kwargs}
        try:
            client.event.connect_pub(timeout=ANSWER_WITHIN)  # before the job, or the answer could be missed
            job = client.run_job(minion_id, fun, args, "list", **options)
            tag = f"salt/job/{job.get('jid')}/ret/{minion_id}"
            wait = max(0.01, deadline - time.monotonic())  # get_event takes 0 for no limit
            answer = client.event.get_event(wait, tag, match_type="startswith") if job else None
        except (SaltClientError, SaltReqTimeoutError, OSError) as err:
            raise NoAnswer(f"{minion_id} cannot be reached through the master: {err}") from err
        finally:
            client.event.close_pub()
        if not isinstance(answer, Mapping) or "return" not in answer:
            raise NoAnswer(f"{minion_id} does not answer")
        return answer

    def _client(self) -> Client:
        if not hasattr(self._clients, "client"):
            self._clients.client = self._new_client()
        return cast(Client, self._clients.client)

    def _new_client(self) -> Client:
        """Return a client with a bus of its own; it shares the loaded modules of the first, which take long to load."""
        with self._loading:
            self._loaded = self._loaded or Client(mopts=copy.copy(self._opts))
        client = copy.copy(self._loaded)
        client.opts = copy.copy(self._opts)
        client.event = salt.utils.event.get_event("master", opts=client.opts, listen=False)
        return client


def _returned(minion_id: str, fun: str, value: Any, answer: Mapping[str, Any]) -> Any:
    if answer.get("retcode"):
        raise CommandExecutionError(f"{minion_id}: {fun}: {value}")
    return value


def _one_of(minion_id: str, fun: str, answer: Mapping[str, Any]) -> Any:
    """Return the result of one function of a job of several. One that raised has a traceback and no return code."""
    values, codes = answer["return"], answer.get("retcode")
    if not isinstance(values, Mapping) or not isinstance(codes, Mapping) or fun not in values:
        return CommandExecutionError(f"{minion_id}: {fun}: {values!r}")
    if fun in codes and not codes[fun]:
        return values[fun]
    return CommandExecutionError(f"{minion_id}: {fun}: {tail(str(values[fun]).strip(), 1)}")
