"""Salt jobs on single minions, and questions whose answers a minion proves with its key."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import salt.client
import salt.utils.event
from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.host import tail
from saltext.immutable.minions import proven_answers
from saltext.immutable.minions.proven_answers import ANSWER_WITHIN, NoAnswer
from saltext.immutable.spec.model import FunctionCheck


class Client(salt.client.LocalClient):  # type: ignore[misc]
    """Salt's client, except that it does not print ``no minions matched``: standard output is for results only."""

    def _check_pub_data(self, pub_data: Any, listen: bool = True) -> dict[str, Any]:
        if isinstance(pub_data, Mapping) and ("error" in pub_data or not pub_data.get("minions")):
            return {}
        return dict(super()._check_pub_data(pub_data, listen=listen))


class Jobs:
    """Jobs on single minions. Any thread may call; each has a client of its own, since threads cannot share one."""

    def __init__(
        self,
        opts: Mapping[str, Any],
        answer_within: int = ANSWER_WITHIN,
        forged: Callable[[str], None] = lambda minion_id: None,
    ) -> None:
        """``forged`` is called with the id under which an answer came that this minion did not give."""
        self._forged = forged
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
            raise NoAnswer(f"{minion_id} cannot be reached: {err}; see whether salt-master runs, and repeat") from err
        answer = done.get(minion_id) if isinstance(done, dict) else None
        # For a minion that does not answer, Salt returns a text as the result.
        if not isinstance(answer, dict) or "ret" not in answer or answer.get("out") == "no_return":
            raise NoAnswer(f"{minion_id} does not answer; see whether its salt-minion runs and reaches this master")
        return _returned(minion_id, fun, answer["ret"], answer)

    def ask(
        self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None, *, within: float
    ) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result, which the minion proved.

        Raises ``NoAnswer`` if no proven answer came in time, ``CommandExecutionError`` if the function failed.
        """
        [answer] = self.ask_all(minion_id, [FunctionCheck(fun, tuple(args), dict(kwargs or {}))], within=within)
        if isinstance(answer, CommandExecutionError):
            raise answer
        return answer

    def ask_all(self, minion_id: str, calls: Sequence[FunctionCheck], *, within: float) -> list[Any]:
        """Run several functions in one job, and return their results, which the minion proved with one signature.

        The result of a function that failed is the ``CommandExecutionError`` itself.
        """
        asked = json.dumps([[call.fun, list(call.args), dict(call.kwargs)] for call in calls])
        mine, another = self._client(), self._new_client
        answers = proven_answers.answers(mine, another, self._opts, minion_id, asked, within, self._forged)
        if len(answers) != len(calls):
            raise NoAnswer(
                f"{minion_id}: immutable.answer returned {len(answers)} answers to {len(calls)} questions; replace "
                "that machine (salt-run fleet.replace)"
            )
        return [_result(minion_id, call.fun, answer) for call, answer in zip(calls, answers, strict=True)]

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


def _result(minion_id: str, fun: str, answer: Any) -> Any:
    """Return the result of one function, or the error that it ended with."""
    if not isinstance(answer, Mapping) or "return" not in answer:
        error = answer.get("error") if isinstance(answer, Mapping) else answer
        return CommandExecutionError(f"{minion_id}: {fun}: {tail(str(error).strip(), 1)}")
    if answer.get("retcode"):
        return CommandExecutionError(f"{minion_id}: {fun}: {answer['return']}")
    return answer["return"]
