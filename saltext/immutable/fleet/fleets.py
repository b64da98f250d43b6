"""What all commands on fleets share: definitions, ledgers, leases, forecasts, and how a rollout is driven."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet import unknown_machines
from saltext.immutable.fleet.access import Access, router
from saltext.immutable.fleet.books.audit import AuditEntry, AuditLog
from saltext.immutable.fleet.books.budgets import Budget
from saltext.immutable.fleet.books.ledger import Entry, Generation, Ledger, fleets_with_machines
from saltext.immutable.fleet.books.taints import Taints
from saltext.immutable.fleet.books.unknown_machines import Resized, write_back
from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.state import UNLIMITED, Kind, Limits, Machine, Outcome, Rollout
from saltext.immutable.fleet.decide.verdicts import revived
from saltext.immutable.fleet.decide.windows import Level, mistakes, opening
from saltext.immutable.fleet.drive.loop import Driver
from saltext.immutable.fleet.drive.threads import Effects, Threads, in_parallel
from saltext.immutable.fleet.drive.world import Minions, World
from saltext.immutable.fleet.preflight import unanswerable
from saltext.immutable.fleet.preview import Forecast, machines_of
from saltext.immutable.fleet.signals import stop_on_signal
from saltext.immutable.providers import Instance, Provider
from saltext.immutable.spec.model import Definitions, Fleet, ProviderSpec, Settings, TrafficSpec
from saltext.immutable.store import Holder, Lease, Store
from saltext.immutable.traffic import Traffic

CONSOLE_LINES = 25
"""How many lines of a failed machine's console an error shows."""


class Failed(CommandExecutionError):  # type: ignore[misc]
    """A rollout ended with another outcome than the command asked for."""


class Fleets:
    """The fleets of one master. Everything from outside (store, Salt, providers, clock ...) is passed in.

    ``say`` is called with the name of the fleet and each entry of a journal, once it is written.
    """

    def __init__(
        self,
        store: Store,
        definitions: Definitions,
        minions: Minions,
        load: Callable[[ProviderSpec], Provider],
        say: Callable[[str, Entry], None],
        *,
        clock: Callable[[], float] = time.time,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        effects: Callable[[Callable[[], bool]], Effects] | None = None,
        user: str | None = None,
        jid: str | None = None,
        settings: Settings | None = None,
        route: Callable[[TrafficSpec], Traffic] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        stop_signals: Callable[[], AbstractContextManager[Callable[[], bool]]] | None = None,
        ask_all: Callable[[Mapping[str, Callable[[], Any]]], dict[str, Any]] = in_parallel,
    ) -> None:
        self.store, self.definitions, self.minions = store, definitions, minions
        self._say, self.clock, self._token = say, clock, token
        self.access = Access(store, minions, load, route or router({}), clock, ask_all)
        self._ask_all, self._warned = ask_all, dict[str, list[str]]()
        self.recovered: dict[str, unknown_machines.Recovery] = {}
        """Fleet to what was written back last of machines that the store did not know."""
        self.effects = effects or (lambda stopped: Threads(minions.poll, stopped))
        self.user, self.jid = user, jid
        self.taints, self.audit = Taints(store), AuditLog(store)
        self._settings, self._sleep = settings or Settings(), sleep
        self.stop_signals = stop_signals or stop_on_signal

    def definition(self, name: str) -> Fleet:
        """Return a fleet's definition in the pillar, for launching machines.

        Raises ``SaltInvocationError`` if there is none, or if a health check of it would be refused by its machines.
        """
        fleet = self.find(name)
        if why := unanswerable(fleet):
            raise SaltInvocationError(why)
        return fleet

    def closed(self, fleet: Fleet) -> str | None:
        """Return why a fleet may not be changed by choice now; None if its windows are open."""
        return self.windows(fleet)(self.clock()).closed

    def names(self) -> list[str]:
        """Return the names of fleets that are in the pillar or have machines."""
        return sorted({*self.definitions.fleets, *fleets_with_machines(self.store)})

    def ledger(self, name: str) -> Ledger:
        """Return the ledger of a fleet that is or was in the pillar."""
        self.find(name, allow_removed=True)
        return Ledger(self.store, name)

    def instances(self, name: str) -> dict[str, Instance]:
        """Return minion id to instance of a fleet's machines, as their providers list them."""
        world = self.world(self.find(name, allow_removed=True), Ledger(self.store, name))
        return {instance.minion_id: instance for instance in world.list()}

    def audit_entry(self, what: str, minion_id: str, fleet: str | None, reason: str) -> AuditEntry:
        """Return an entry for the audit log with the present time, user and job id."""
        return AuditEntry(self.clock(), fleet, minion_id, what, reason, self.user, self.jid)

    def holder(self, name: str) -> Holder | None:
        """Return the process that works on a fleet now, or None."""
        return self.store.holder(f"fleet {name}")

    def image_name(self, generation: Generation | None) -> str | None:
        """Return the short name of a generation's image, also if it was deleted."""
        if generation is None:
            return None
        known = {image.digest: image.name for image in self.store.images()}
        return known.get(generation.image, f"{generation.image[:12]} (deleted)")

    # Rollouts

    def _require_open(self, fleet: Fleet, now: bool) -> None:
        """Raise ``CommandExecutionError`` outside the fleet's windows, unless ``now``."""
        if not now and (closed := self.closed(fleet)):
            raise CommandExecutionError(f"fleet {fleet.name} is {closed}; now=True rolls it anyway")

    def _begin(
        self, fleet: Fleet, ledger: Ledger, lease: Lease, kind: Kind, target: int, now: bool = False
    ) -> Rollout | None:
        """Begin a rollout to generation ``target`` and drive it to its end; return None if there is nothing to do."""
        unfinished = ledger.unfinished()
        forecast_ = self._forecast(fleet, ledger, kind, target)
        # fleet.reconcile acts on what it observed, which the ledger and one list do not show.
        if unfinished is None and forecast_.nothing and kind != "reconcile":
            return None
        if kind == "roll":
            self._require_open(fleet, now)
        replaces = sum(action.kind == "launch" for action in forecast_.actions)
        return self._drive(fleet, ledger, lease, ledger.begin(lease, kind, target, self.clock(), replaces), now=now)

    def _drive(
        self,
        fleet: Fleet,
        ledger: Ledger,
        lease: Lease,
        rollout: Rollout,
        expected: Sequence[Outcome] = ("done",),
        *,
        now: bool = False,
    ) -> Rollout:
        """Drive a rollout to its end; raise ``Failed`` if the outcome is not one of ``expected``."""
        if rollout.outcome == "paused":
            ledger.drop_pauses(lease, rollout, self.clock())
        ledger.drop_size(lease, fleet.size)
        with self.stop_signals() as stopped:
            driver = Driver(
                fleet,
                revived(rollout, self.clock()),
                ledger,
                lease,
                self.world(fleet, ledger, rollout.source, rollout.target),
                self.effects(stopped),
                clock=self.clock,
                new_id=lambda: fleet.minion_id.format(token=self._token()),
                say=partial(self._say, fleet.name),
                stopped=stopped,
                windows=self.windows(fleet) if not now else lambda _: UNLIMITED,
                budget=Budget(fleet.name, fleet.budgets, self._settings.budgets),
            )
            ended = driver.run()
        return require_outcome(ended, expected, ledger)

    def window_mistakes(self, fleet: Fleet) -> list[str]:
        """Return a sentence for each window of a fleet that cannot be understood, so that it is never open."""
        return mistakes(self._levels(fleet))

    def _levels(self, fleet: Fleet) -> tuple[Level, ...]:
        return (
            Level(f"immutable:fleets:{fleet.name}:windows", fleet.windows),
            Level("config immutable:windows", self._settings.windows),
        )

    def windows(self, fleet: Fleet) -> Callable[[float], Limits]:
        """Return a function from a time to whether the fleet may be changed by choice then."""
        levels = self._levels(fleet)
        if not any(level.windows for level in levels):
            return lambda _: UNLIMITED

        def limits(now: float) -> Limits:
            found = opening(levels, now)
            return Limits(until=found.until) if found.is_open else Limits(closed=found.reason, until=found.opens)

        return limits

    def _forecast(
        self,
        fleet: Fleet,
        ledger: Ledger,
        kind: Kind,
        target: int | None,
        image: str | None = None,
        *,
        sized: bool = False,
        found: unknown_machines.Recovery | None = None,
    ) -> Forecast:
        """Return what a rollout of this kind to generation ``target`` would do.

        ``image``: digest, if the target generation does not exist yet; ``sized``: ``fleet`` has its effective size.
        ``found``: what will be written back first, if that is known already.
        """
        now, lineage = self.clock(), ledger.lineage()
        found = found or self.access.recovery(fleet, ledger)
        unfinished = None if found.reasons else ledger.unfinished()  # it ends where machines are written back
        fleet = fleet if sized else replace(fleet, size=found.size or ledger.effective_size(fleet.size))
        source = lineage[-1] if lineage else None
        rollout = Rollout(0, fleet.name, kind, source, target, ledger.old_size(), started=now, progress_at=now)
        machines = self.machines(fleet, ledger, now, found)
        generation = ledger.generations().get(target) if target is not None else None
        digest = image or (generation.image if generation else None)
        actions, stuck = forecast(fleet, rollout, machines, now)
        return Forecast(
            fleet.name,
            kind,
            source,
            self.store.image(image).name if image else self.image_name(generation),
            tuple(actions),
            continues=unfinished is not None or any(m.phase == "doomed" for m in machines),
            digest=digest,
            machines=tuple(machines),
            stuck=stuck,
        )

    def machines(
        self, fleet: Fleet, ledger: Ledger, now: float, found: unknown_machines.Recovery | None = None
    ) -> list[Machine]:
        """Return a fleet's machines from the ledger and a list of the provider; ``found``: as for `_forecast`."""
        found = found or self.access.recovery(fleet, ledger)
        instances = {one.minion_id: one for one in self.world(fleet, ledger).list()}
        taints = {**dict.fromkeys(self.access.keyless(fleet, ledger), unknown_machines.KEYLESS), **ledger.tainted()}
        return list(machines_of(ledger, found.records, taints, instances, now))

    def world(self, fleet: Fleet, ledger: Ledger, *numbers: int | None) -> World:
        """Return the fleet's world; see `Access.world`."""
        return self.access.world(fleet, ledger, *numbers)

    def find(self, name: str, allow_removed: bool = False) -> Fleet:
        """Return the definition of a fleet; raise ``SaltInvocationError`` if it is not in the pillar.

        ``allow_removed``: for a fleet that was removed from the pillar, return what is needed to destroy it.
        """
        fleets = self.definitions.fleets
        if name in fleets:
            return fleets[name]
        history = Ledger(self.store, name).generations() if allow_removed else {}
        if not history:
            raise SaltInvocationError(
                f"immutable:fleets:{name} is not in the pillar; there are: {', '.join(sorted(fleets)) or 'none'}"
            )
        newest = history[max(history)]
        return Fleet(
            name, recipe="", size=0, minion_id="", provider=newest.provider, traffic=newest.traffic, check_states=False
        )

    def _image(self, fleet: Fleet, ref: str | None) -> str:
        return self.store.usable(ref or f"{fleet.recipe}:{fleet.channel}").digest

    def _rollback_target(self, ledger: Ledger, number: int | None) -> int:
        """Return the generation to roll back to; raise if there is none, or if its image cannot be rolled.

        ``number``: the one that the operator named.
        """
        lineage, unfinished = ledger.lineage(), ledger.unfinished()
        if number is None and unfinished and unfinished.kind == "rollback":
            number = unfinished.target
        if number is None:
            # While a rollout to another generation is unfinished, the last good generation is its source.
            is_leaving = unfinished is not None and unfinished.target != unfinished.source
            good = lineage if is_leaving or ledger.left_halfway() else lineage[:-1]
            if not good:
                known = ", ".join(map(str, ledger.generations())) or "none"
                raise SaltInvocationError(
                    f"fleet {ledger.fleet} has no good generation to go back to; "
                    f"name one with generation=N (there are: {known})"
                )
            number = good[-1]
        self._require_image(ledger.generation(number))
        return number

    def _require_image(self, generation: Generation) -> None:
        if all(image.digest != generation.image for image in self.store.images()):
            raise SaltInvocationError(
                f"generation {generation.number} of fleet {generation.fleet} ran image {generation.image[:12]}, which "
                f"is deleted; `salt-run fleet.history {generation.fleet}` shows the others"
            )
        if revocation := self.store.revoked().get(generation.image):
            raise CommandExecutionError(
                f"fleet {generation.fleet} cannot go back to generation {generation.number}: {revocation}; "
                f"name another with generation=N (`salt-run fleet.history {generation.fleet}` shows them)"
            )

    # Machines that are not in the store

    @contextmanager
    def lease(self, name: str, must_list: bool = True) -> Iterator[Lease]:
        """Hold the lease of a fleet; raise ``Held`` if another process works on it.

        Machines of the fleet that the store does not know are written back first, and those without a key tainted.
        ``must_list``: raise ``CommandExecutionError`` if a provider cannot list its machines just now. (Else they are
        left alone: a driver touches no machine that the store never knew.)
        """
        with self.store.lease(f"fleet {name}", user=self.user, jid=self.jid) as lease:
            try:
                self.recover(name, lease)
                self._taint_keyless(name)
            except CommandExecutionError:
                if must_list:
                    raise
            yield lease

    def recover(self, name: str, lease: Lease) -> None:
        """Write what runs and is not in the books of a fleet, if the store is older than the machines.

        Raises ``CommandExecutionError`` if the store was lost, or if a provider cannot list its machines.
        """
        fleet, ledger = self.find(name, allow_removed=True), Ledger(self.store, name)
        if why := self.lost(name):
            raise CommandExecutionError(why)
        found = self.access.recovery(fleet, ledger, ask=True)
        if not found.records:
            return
        entries = [self.audit_entry("recovered", one, name, why) for one, why in sorted(found.reasons.items())]
        size = found.size if name in self.definitions.fleets else None
        resized = None if size is None else Resized(size, fleet.size, self.user)
        write_back(ledger, lease, found.records, found.generations, found.current, entries, resized)
        self.recovered[name] = found
        for one in entries:
            self._say(name, Entry(one.at, one.what, one.minion_id, one.reason))

    def lost(self, name: str) -> str | None:
        """Return a sentence if a fleet of the pillar has no machines in the store, and others that it had before."""
        fleet = self.definitions.fleets.get(name)
        return self.access.lost(fleet, Ledger(self.store, name)) if fleet else None

    def warnings(self, name: str) -> list[str]:
        """Return what an operator must know of a fleet, or of ``all``: about the store, and windows that never open.

        It is worked out once: the command that begins may write back what the store does not know.
        """
        if name == "all":
            found = self._ask_all({one: partial(self.warnings, one) for one in self.names()})
            return list(chain(*found.values()))
        if name not in self._warned:
            fleet = self.find(name, allow_removed=True)
            about_store = self.access.warning(fleet, Ledger(self.store, name))
            self._warned[name] = [*([about_store] if about_store else []), *self.window_mistakes(fleet)]
        return self._warned[name]

    def _taint_keyless(self, name: str) -> None:
        """Taint machines whose minion key is gone, so that a rollout replaces them; not those that have it back."""
        keyless = self.access.keyless(self.find(name, allow_removed=True), Ledger(self.store, name))
        for taint in chain(*self.taints.of_fleet(name).values()):
            if taint.reason == unknown_machines.KEYLESS and self.minions.accepted(taint.minion_id):
                why = "its minion key is there again"
                self.taints.withdraw("sick", self.audit_entry("untainted", taint.minion_id, name, why))
        for minion_id in keyless:
            entry = self.audit_entry("tainted", minion_id, name, unknown_machines.KEYLESS)
            if self.taints.add("sick", entry):
                self._say(name, Entry(entry.at, "keyless", minion_id, entry.reason))


def last_good(ledger: Ledger) -> int:
    """Return the current generation of a fleet; raise ``CommandExecutionError`` if it has none."""
    lineage = ledger.lineage()
    if not lineage:
        raise CommandExecutionError(
            f"fleet {ledger.fleet} runs no generation yet; `salt-run fleet.roll {ledger.fleet}` launches it"
        )
    return lineage[-1]


def require_outcome(ended: Rollout, expected: Sequence[Outcome], ledger: Ledger) -> Rollout:
    """Return the rollout if its outcome is ``expected`` (empty: any); raise ``Failed`` with the reason otherwise."""
    if expected and ended.outcome not in expected:
        raise Failed(_describe(ended, ledger.entries(ended.id)))
    return ended


def _describe(rollout: Rollout, entries: list[Entry]) -> str:
    """Return how a rollout ended and why, with the end of the consoles of the machines that failed."""
    lines = [f"fleet {rollout.fleet}: {rollout.kind} {rollout.outcome}: {rollout.reason}"]
    for entry in entries:
        if entry.what == "console":
            lines += [f"--- console of {entry.minion_id} ---", *entry.reason.rstrip().splitlines()[-CONSOLE_LINES:]]
    return "\n".join(lines)
