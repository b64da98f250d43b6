"""The minions of bakes and fleets: enrolment, events and checks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import salt.cache
import salt.key
import salt.utils.event
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.minions import health
from saltext.immutable.minions.events import Event, poll
from saltext.immutable.minions.jobs import Jobs, NoAnswer
from saltext.immutable.minions.master import require_running
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import FunctionCheck, HttpCheck

_KEYS = ("minions", "minions_pre", "minions_denied", "minions_rejected")


class Minions:
    """Enrolment, events and checks of a fleet's machines."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        require_running(opts)
        self._opts = dict(opts)
        # Where Salt's masters look for stubs (salt.daemons.masterapi.AutoKey.check_autosign_dir).
        pki = opts["cluster_pki_dir"] if opts.get("cluster_id") else opts["pki_dir"]
        self._stubs = Path(pki, "minions_autosign")
        self._keys = threading.Lock()
        self._jobs = Jobs(opts)
        self._bus = salt.utils.event.get_event("master", opts=self._opts, listen=True)

    def close(self) -> None:
        """Leave the event bus."""
        self._bus.destroy()

    def expect(self, minion_id: str) -> None:
        """Let the first key that is offered for this id be accepted; Salt's master consumes the stub."""
        self._stubs.mkdir(mode=0o700, exist_ok=True)
        (self._stubs / _checked(minion_id)).touch(mode=0o600)

    def enrol(self, minion_id: str, pub: str) -> None:
        """Accept this public key (PEM) for an id.

        For an id that everybody can know, such as a recipe's: there is no moment at which another key would do. As
        ``key.gen_accept`` does it, but the private half is made where it is used: what a wheel function returns goes
        into the job cache and on the event bus.
        """
        if "keys.cache_driver" in self._opts:  # since Salt 3008
            keys = salt.cache.Cache(self._opts, driver=self._opts["keys.cache_driver"])
            keys.store("keys", _checked(minion_id), {"pub": pub, "state": "accepted"})
        else:
            Path(self._opts["pki_dir"], "minions", _checked(minion_id)).write_text(pub)

    def forget(self, minion_id: str) -> None:
        """Remove the stub and every key of this id."""
        with suppress(FileNotFoundError):
            (self._stubs / _checked(minion_id)).unlink()
        with self._stock() as keys:
            keys.delete_key(match=_checked(minion_id))

    def known(self) -> set[str]:
        """Return the ids that have a stub or a key of any standing."""
        keys = self._listed()
        stubs = {stub.name for stub in self._stubs.iterdir()} if self._stubs.is_dir() else set()
        return stubs.union(*(keys.get(kind, []) for kind in _KEYS))

    def _listed(self) -> dict[str, list[str]]:
        """Return the ids that have a key, by its standing."""
        with self._stock() as keys:
            return dict(keys.list_keys())

    @contextmanager
    def _stock(self) -> Iterator[Any]:
        """Give Salt's keys, as its wheel functions have them, to one thread at a time."""
        with self._keys, salt.key.get_key(self._opts) as keys:
            try:
                yield keys
            except OSError as err:
                raise CommandExecutionError(f"the keys of this master cannot be used: {err}") from err

    def poll(self) -> list[Event]:
        """Return some of the events about minions that came since the last call."""
        return poll(self._bus)

    def contested(self, minion_id: str) -> bool:
        """Tell whether Salt's master denied a key for this id, because it knows another one."""
        return minion_id in self._listed().get("minions_denied", [])

    def accepted(self, minion_id: str) -> bool:
        """Tell whether a minion of this id has a key that the master accepted."""
        return minion_id in self._listed().get("minions", [])

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Run one function that takes less than ``within`` seconds, and return its result."""
        return self._jobs.ask(minion_id, fun, kwargs=kwargs, within=within)

    def image_of(self, minion_id: str, within: float) -> str:
        """Return the digest of the image that a machine says it runs, '' for none: one job there and back.

        Raises ``NoAnswer`` while its launch phase is under way, ``LaunchFailed`` when that failed.
        """
        return health.image(minion_id, self._jobs.ask(minion_id, "immutable.status", within=within))

    def look(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> tuple[str, list[str | None]]:
        """Return what ``image_of`` does, and what ``check`` does of each, in one job; each has another function."""
        if not checks:
            return self.image_of(minion_id, within), []
        status, *answers = self._jobs.ask_all(minion_id, [health.STATUS_CALL, *checks], within=within)
        if isinstance(status, CommandExecutionError):
            raise status
        return health.image(minion_id, status), [health.unhealthy(*pair) for pair in zip(checks, answers, strict=True)]

    def check(self, minion_id: str, address: str | None, check: FunctionCheck | HttpCheck, within: float) -> str | None:
        """Return why a machine is not healthy, or None if it is; ``NoAnswer`` if nothing could be learned."""
        if isinstance(check, HttpCheck):
            return health.http(check.url.format(address=address, minion_id=minion_id), min(check.timeout, within))
        try:
            answer = self._jobs.ask(minion_id, check.fun, check.args, check.kwargs, within=within)
        except NoAnswer:
            raise
        except CommandExecutionError as err:
            answer = err
        return health.unhealthy(check, answer)


def _checked(minion_id: str) -> str:
    """Return an id that is one id and one file name; Salt would take ``*`` for every key."""
    try:
        return reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err
