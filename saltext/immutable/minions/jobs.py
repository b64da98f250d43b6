"""Jobs on single minions."""

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
"""Seconds for which a minion may be silent before it is asked whether the job still runs."""


class NoAnswer(CommandExecutionError):  # type: ignore[misc]
    """Nothing could be learned about a machine: neither that it is well nor that it is ill."""


class Client(salt.client.LocalClient):  # type: ignore[misc]
    """Salt's client, which does not print that nobody was reached: standard output is for results, as JSON perhaps."""

    def _check_pub_data(self, pub_data: Any, listen: bool = True) -> dict[str, Any]:
        if isinstance(pub_data, Mapping) and ("error" in pub_data or not pub_data.get("minions")):
            return {}
        return dict(super()._check_pub_data(pub_data, listen=listen))


class Jobs:
    """Jobs on single minions. Any thread may call; each has a client of its own, as Salt's are not to be shared."""

    def __init__(self, opts: Mapping[str, Any], patience: int = ANSWER_WITHIN) -> None:
        self._opts = {**opts, "gather_job_timeout": patience}
        self._patience = patience
        self._clients = threading.local()
        self._loading = threading.Lock()
        self._loaded: Client | None = None

    def run(self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run one function to its end, however long that takes, and return its result.

        Raises ``NoAnswer`` when the minion neither answers nor is at work, ``CommandExecutionError`` when the
        function failed.
        """
        how = {"kwarg": dict(kwargs or {}), "full_return": True}
        try:
            done = self._client().cmd(minion_id, fun, list(args), self._patience, "list", **how)
        except (SaltClientError, SaltReqTimeoutError) as err:
            raise NoAnswer(f"{minion_id} cannot be asked through the master: {err}") from err
        answer = done.get(minion_id) if isinstance(done, dict) else None
        # For a minion that is silent Salt makes up an answer, with a text as its result.
        if not isinstance(answer, dict) or "ret" not in answer or answer.get("out") == "no_return":
            raise NoAnswer(f"{minion_id} does not answer")
        return _returned(minion_id, fun, answer["ret"], answer)

    def ask(
        self, minion_id: str, fun: str, args: Any = (), kwargs: Mapping[str, Any] | None = None, *, within: float
    ) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result; raises as ``run`` does."""
        said = self._job(minion_id, fun, list(args), dict(kwargs or {}), within)
        return _returned(minion_id, fun, said["return"], said)

    def ask_all(self, minion_id: str, calls: Sequence[FunctionCheck], *, within: float) -> list[Any]:
        """Run several functions, each of another name, in one job: for the minion that is one process in place of many.

        Return the result of each; of one that failed, the ``CommandExecutionError`` itself.
        """
        arguments = [[*call.args, *([{"__kwarg__": True, **call.kwargs}] if call.kwargs else [])] for call in calls]
        said = self._job(minion_id, [call.fun for call in calls], arguments, {}, within)
        return [_one_of(minion_id, call.fun, said) for call in calls]

    def _job(
        self, minion_id: str, fun: str | list[str], args: list[Any], kwargs: dict[str, Any], within: float
    ) -> Mapping[str, Any]:
        """Run a job, and return all that the minion says of it."""
        deadline = time.monotonic() + within
        client = self._client()
        how = {"timeout": ANSWER_WITHIN, "kwarg": kwargs}
        try:
            client.event.connect_pub(timeout=ANSWER_WITHIN)  # else an answer could come before we listen
            job = client.run_job(minion_id, fun, args, "list", **how)
            tag = f"salt/job/{job.get('jid')}/ret/{minion_id}"
            wait = max(0.01, deadline - time.monotonic())  # 0 would be for ever
            said = client.event.get_event(wait, tag, match_type="startswith") if job else None
        except (SaltClientError, SaltReqTimeoutError, OSError) as err:
            raise NoAnswer(f"{minion_id} cannot be asked through the master: {err}") from err
        finally:
            client.event.close_pub()
        if not isinstance(said, Mapping) or "return" not in said:
            raise NoAnswer(f"{minion_id} does not answer")
        return said

    def _client(self) -> Client:
        if not hasattr(self._clients, "client"):
            self._clients.client = self._another()
        return cast(Client, self._clients.client)

    def _another(self) -> Client:
        """Return one more client: with a bus of its own, and the modules of the first, which take a while to find."""
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


def _one_of(minion_id: str, fun: str, said: Mapping[str, Any]) -> Any:
    """Return what one function of a job of several gave. Of one that raised there is a traceback and no code."""
    values, codes = said["return"], said.get("retcode")
    if not isinstance(values, Mapping) or not isinstance(codes, Mapping) or fun not in values:
        return CommandExecutionError(f"{minion_id}: {fun}: {values!r}")
    if fun in codes and not codes[fun]:
        return values[fun]
    return CommandExecutionError(f"{minion_id}: {fun}: {tail(str(values[fun]).strip(), 1)}")
