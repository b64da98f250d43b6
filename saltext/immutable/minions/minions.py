"""The minions of bakes and fleets: keys, events and health checks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import salt.utils.event
from salt.exceptions import CommandExecutionError

from saltext.immutable.minions import health
from saltext.immutable.minions.events import Event, poll
from saltext.immutable.minions.jobs import Jobs
from saltext.immutable.minions.keys import Keys
from saltext.immutable.minions.master import require_running
from saltext.immutable.minions.proven_answers import NoAnswer
from saltext.immutable.spec.model import FunctionCheck, HttpCheck


class Minions(Keys):
    """The keys, events and health of the minions of one running master."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        require_running(opts)
        super().__init__(opts)
        self._forged: deque[str] = deque(maxlen=1000)
        self._jobs = Jobs(opts, forged=self._forged.append)
        self._bus = salt.utils.event.get_event("master", opts=self._opts, listen=True)

    def close(self) -> None:
        """Disconnect from the event bus."""
        self._bus.destroy()

    def poll(self) -> list[Event]:
        """Return some of the events about minions that came since the last call, forged answers among them."""
        return [*(Event("forged", minion_id) for minion_id in self.forged()), *poll(self._bus)]

    def forged(self) -> list[str]:
        """Return the ids under which answers came since the last call that their minions did not give."""
        return list(dict.fromkeys(self._forged.popleft() for _ in range(len(self._forged))))

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result."""
        return self._jobs.ask(minion_id, fun, kwargs=kwargs, within=within)

    def image_of(self, minion_id: str, within: float) -> str:
        """Return the digest of the image that a machine reports, '' for none, by one job.

        Raises ``NoAnswer`` while its launch phase runs, ``LaunchFailed`` if that failed.
        """
        return health.image(minion_id, self._jobs.ask(minion_id, "immutable.status", within=within))

    def check_all(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> tuple[str, list[str | None]]:
        """Return the result of ``image_of`` and that of ``check`` for each check, by one job.

        The checks must have different functions.
        """
        if not checks:
            return self.image_of(minion_id, within), []
        status, *answers = self._jobs.ask_all(minion_id, [health.STATUS_CALL, *checks], within=within)
        if isinstance(status, CommandExecutionError):
            raise status
        return health.image(minion_id, status), [health.unhealthy(*pair) for pair in zip(checks, answers, strict=True)]

    def check_together(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> list[str | None]:
        """Return the result of ``check`` for each check, by one job. The checks must have different functions."""
        answers = self._jobs.ask_all(minion_id, checks, within=within)
        return [health.unhealthy(*pair) for pair in zip(checks, answers, strict=True)]

    def check(self, minion_id: str, address: str | None, check: FunctionCheck | HttpCheck, within: float) -> str | None:
        """Return why a machine is not healthy, or None if it is; raise ``NoAnswer`` if it does not answer."""
        if isinstance(check, HttpCheck):
            return health.http(check.url.format(address=address, minion_id=minion_id), min(check.timeout, within))
        try:
            answer = self._jobs.ask(minion_id, check.fun, check.args, check.kwargs, within=within)
        except NoAnswer:
            raise
        except CommandExecutionError as err:
            answer = err
        return health.unhealthy(check, answer)
