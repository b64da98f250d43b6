"""The calls that a driver makes in threads: to the providers, the traffic and the minions of one fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

from salt.exceptions import CommandExecutionError, SaltException

from saltext.immutable.fleet.books.ledger import Generation, Record
from saltext.immutable.fleet.drive.probing import PROBE_WITHIN
from saltext.immutable.minions import Event, LaunchFailed, NoAnswer, Outdated
from saltext.immutable.providers import Identity, Instance, Provider
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import STATES_CHECK, Fleet, FunctionCheck, HttpCheck
from saltext.immutable.text import plain
from saltext.immutable.traffic import Traffic, TrafficStatus

STATES_EVERY = 10.0
"""Seconds for which services that ran are believed to run, in a fleet with health checks of its own."""
CONSOLE = 20_000
"""How many characters of a console are kept, the last ones."""


class Minions(Protocol):
    """What a driver needs of Salt. An error of ``image_of`` or ``check`` means that the answer is unknown."""

    def expect(self, minion_id: str) -> None:
        """Let this id enrol once; idempotent."""

    def forget(self, minion_id: str) -> None:
        """Remove the stub and all keys of an id; idempotent."""

    def poll(self) -> list[Event]:
        """Return the events since the last call. Any minion can send any event."""

    def forged(self) -> list[str]:
        """Return the ids under which answers came since the last call that their minions did not give."""

    def contested(self, minion_id: str) -> bool:
        """Tell whether a minion with another key tried to enrol with this id."""

    def known(self) -> set[str]:
        """Return the ids that have a stub, or a key of any state."""

    def accepted(self, minion_id: str) -> bool:
        """Tell whether a minion of this id has a key that the master accepted."""

    def with_key(self) -> set[str]:
        """Return the ids that have a key which the master accepted."""

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Run one function and return its result; raise ``NoAnswer`` if it does not come ``within`` seconds."""

    def image_of(self, minion_id: str, within: float) -> str:
        """Return the digest of the image that a machine reports; raise ``LaunchFailed`` if its launch failed."""

    def check_all(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> tuple[str, list[str | None]]:
        """Return the digest and the result of each check, by one job; the checks have different functions."""

    def check_together(self, minion_id: str, checks: Sequence[FunctionCheck], within: float) -> list[str | None]:
        """Return the result of each check, by one job; the checks have different functions."""

    def check(
        self, minion_id: str, address: str | None, check: FunctionCheck | HttpCheck, within: float
    ) -> str | None:
        """Return why the machine is not healthy, or None if it is."""


@dataclass(frozen=True)
class Probe:
    """The result of a probe of one machine."""

    health: Literal["yes", "no", "unknown"]
    note: str = ""
    wrong: bool = False
    """It runs another image, or its launch phase failed: it does not help to wait longer."""
    outdated: bool = False
    """Its image has an older version of this pack, which cannot prove its answers."""


class BelowFloor(CommandExecutionError):  # type: ignore[misc]
    """No machine may be drained: the traffic adapter has fewer healthy machines than the floor."""


class World:
    """One fleet's providers, minions and traffic. Its methods are called in threads and may block."""

    def __init__(
        self,
        fleet: Fleet,
        installation: str,
        generations: Mapping[int, Generation],
        providers: Mapping[int, Provider],
        default: Provider,
        minions: Minions,
        clock: Callable[[], float] = time.time,
        traffic: Traffic | None = None,
        proofs_since: float = 0.0,
    ) -> None:
        """``proofs_since``: a machine that was launched later can prove its answers, whatever is said of it."""
        self._proofs_since = proofs_since
        self._traffic = traffic
        self._fleet = fleet
        self._installation = installation
        self._generations = generations
        self._providers = providers
        self._default = default
        self._minions = minions
        self._clock = clock
        everyone = (default, *providers.values())
        self._states_held: dict[str, float] = {}
        """When the services that a machine's states want running were seen to run."""
        self.settles = max(provider.settles for provider in everyone)
        self.concurrency = min(provider.concurrency for provider in everyone)

    def launch(self, record: Record) -> str:
        """Let the machine's minion enrol, start the machine, and return its ref."""
        provider = self._provider(record)
        published = provider.publish(self._generations[record.generation].image)
        identity = Identity(record.minion_id, record.fleet, record.generation, self._installation)
        self._minions.expect(record.minion_id)
        return provider.launch(published, identity)

    def relaunch(self, record: Record, within: float) -> None:
        """Run the launch phase of a machine again; raise ``CommandExecutionError`` if it fails."""
        said = self._minions.ask(record.minion_id, "immutable.launch", within)
        if not isinstance(said, Mapping) or said.get("ok") is not True:
            raise CommandExecutionError(f"immutable.launch says {said!r}")

    @property
    def routed(self) -> bool:
        """Tell whether the fleet has a traffic adapter."""
        return self._traffic is not None

    def status(self) -> Mapping[str, TrafficStatus]:
        """Return the state of each machine in the traffic adapter; empty if the fleet has none."""
        return {} if self._traffic is None else self._traffic.status()

    def attach(self, record: Record, address: str) -> None:
        """Send traffic to a machine."""
        if self._traffic is not None:
            self._traffic.attach(record.minion_id, address)

    def drain(self, record: Record, floor: int) -> None:
        """Send a machine no new sessions; raise ``BelowFloor`` if fewer than ``floor`` others would get them."""
        if self._traffic is None:
            return
        status = self._traffic.status()
        others = sum(
            one.state == "in" and one.up is not False for key, one in status.items() if key != record.minion_id
        )
        mine = status.get(record.minion_id)
        if mine is not None and mine.state == "in" and mine.up is not False and others < floor:
            raise BelowFloor(f"without it {others} would get traffic, and the floor is {floor}")
        self._traffic.drain(record.minion_id)

    def destroy(self, record: Record) -> str:
        """Destroy a machine; return the end of the console of one that failed, else ''."""
        provider = self._provider(record)
        assert record.ref is not None
        if self._traffic is not None:
            with suppress(CommandExecutionError):  # `forget` removes it again
                self._traffic.remove(record.minion_id)
        words = self._console(provider, record.ref) if record.intent == "failed" else ""
        provider.destroy(record.ref)
        return words

    def forget(self, minion_id: str) -> None:
        """Delete what is left of a machine that is gone: its entry in the traffic adapter and its keys."""
        if self._traffic is not None:
            self._traffic.remove(minion_id)
        self._minions.forget(minion_id)

    def contested(self, minion_id: str) -> bool:
        """Tell whether a minion with another key tried to enrol with this id."""
        return self._minions.contested(minion_id)

    def list(self) -> list[Instance]:
        """Return the fleet's machines, from every provider that its generations use.

        Machines of another installation are left out, even if its fleet has the same name.
        """
        found: dict[str, Instance] = {}
        for provider in {id(one): one for one in (self._default, *self._providers.values())}.values():
            found.update({one.minion_id: one for one in provider.list(self._fleet.name) if self._ours(one)})
        return list(found.values())

    def _ours(self, instance: Instance) -> bool:
        return is_ours(instance, self._installation)

    def probe(self, record: Record, address: str | None, proven: bool, within: float = PROBE_WITHIN) -> Probe:
        """Ask a machine which image it runs (unless that is proven) and whether it is healthy, ``within`` seconds.

        Any answer becomes a probe: a machine must not be able to stop the driver.
        """
        minion_id, deadline = record.minion_id, self._clock() + within
        checks, found = self._checks_now(minion_id, proven), list[str | None]()
        try:
            together = _at_once(checks)
            if proven and together:
                found = self._minions.check_together(minion_id, together, within)
            elif not proven or not checks:
                wanted = self._generations[record.generation].image
                digest, found = self._minions.check_all(minion_id, together, within)
                if digest != wanted:
                    return Probe("no", plain(f"it runs image {digest[:12]}, not {wanted[:12]}"), wrong=True)
            if ill := next(filter(None, found), None):
                return Probe("no", plain(ill))
            for check in checks[len(found) :]:
                if why := self._minions.check(minion_id, address, check, self._left(deadline)):
                    return Probe("no", plain(why))
        except LaunchFailed as err:
            # A machine that was ready may still serve if the phase failed when it was run again.
            return Probe("no", plain(str(err)), wrong=record.ready_since is None)
        except SaltException as err:
            outdated = isinstance(err, Outdated) and record.born < self._proofs_since
            return Probe("unknown", plain(str(err)), outdated=outdated)
        if STATES_CHECK in checks:
            self._states_held[minion_id] = self._clock()
        return Probe("yes")

    def _checks_now(self, minion_id: str, proven: bool) -> Sequence[FunctionCheck | HttpCheck]:
        """Return the checks of a probe: that of the services follows from the image, and is not made each time."""
        held = self._states_held.get(minion_id)
        if proven and self._fleet.health and held is not None and self._clock() < held + STATES_EVERY:
            return self._fleet.health
        return self._fleet.checks

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise NoAnswer("all questions together took too long")
        return left

    def _provider(self, record: Record) -> Provider:
        return self._providers.get(record.generation, self._default)

    @staticmethod
    def _console(provider: Provider, ref: str) -> str:
        try:
            words = provider.console(ref)[-CONSOLE:]
            return "\n".join(plain(line) for line in words.splitlines())
        except CommandExecutionError as err:
            return f"(its console cannot be read: {err})"


def _at_once(checks: Sequence[FunctionCheck | HttpCheck]) -> list[FunctionCheck]:
    """Return the leading checks that fit in one job: it tells its functions apart by their names."""
    found: list[FunctionCheck] = []
    for check in checks:
        if isinstance(check, HttpCheck) or check.fun in {one.fun for one in found}:
            break
        found.append(check)
    return found


def is_ours(instance: Instance, installation: str) -> bool:
    """Tell whether a machine is this installation's, and its tag a valid minion id. (Salt deletes keys by globs.)"""
    return instance.installation == installation and _is_minion_id(instance.minion_id)


@lru_cache(maxsize=1 << 16)
def _is_minion_id(name: str) -> bool:
    """Tell whether a name is a valid minion id."""
    try:
        reading.minion_id(name)
    except ValueError:
        return False
    return True
