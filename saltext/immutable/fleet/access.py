"""How the master reaches the machines of a fleet, and what they and their providers say that the books do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from salt.exceptions import SaltException

from saltext.immutable import providers, traffic
from saltext.immutable.fleet import unknown_machines
from saltext.immutable.fleet.books.ledger import Generation, Ledger, Record
from saltext.immutable.fleet.books.unknown_machines import never_known
from saltext.immutable.fleet.drive.track import phase
from saltext.immutable.fleet.drive.world import Minions, World, is_ours
from saltext.immutable.fleet.unknown_machines import Books, Listed, Recovery, distinct, recovery, without_absent
from saltext.immutable.providers import Instance, Provider
from saltext.immutable.spec.model import Fleet, ProviderSpec, TrafficSpec
from saltext.immutable.store import Store
from saltext.immutable.text import plain
from saltext.immutable.traffic import Traffic

ANSWERS_WITHIN = 2.0
"""Seconds for the answer of a machine that boots, as the store says: the store may be yesterday's."""
ASKED = 3
"""How often such a machine is asked: one lost answer must not make it one that boots."""

Calls = Mapping[str, Callable[[], Any]]


class Access:
    """Providers, traffic adapters and minions of all fleets.

    ``ask_all`` makes calls, and returns the result of each, or its Salt error.
    """

    def __init__(
        self,
        store: Store,
        minions: Minions,
        load: Callable[[ProviderSpec], Provider],
        route: Callable[[TrafficSpec], Traffic],
        clock: Callable[[], float],
        ask_all: Callable[[Calls], dict[str, Any]],
    ) -> None:
        self._store, self._minions, self._load, self._route = store, minions, load, route
        self._clock, self._ask_all = clock, ask_all

    def world(self, fleet: Fleet, ledger: Ledger, *numbers: int | None, missing: Sequence[Generation] = ()) -> World:
        """Return the fleet's world with the providers of all generations that have machines.

        ``numbers``: further generations, which will get machines; ``missing``: those of machines that the store does
        not know. A generation may have another provider.
        """
        more = {one.number: one for one in missing}
        generations = {**ledger.generations(), **more}
        needed = {record.generation for record in ledger.records().values()}.union(numbers, more)
        default = self._load(fleet.provider)
        loaded = [(fleet.provider, default)]
        by_number: dict[int, Provider] = {}
        for number, generation in generations.items():
            if number in needed:
                found = [provider for spec, provider in loaded if spec == generation.provider]
                by_number[number] = found[0] if found else self._load(generation.provider)
                loaded.append((generation.provider, by_number[number]))
        traffic = None if fleet.traffic is None else self._route(fleet.traffic)
        about = (fleet, ledger.installation, generations, by_number, default)
        return World(*about, self._minions, self._clock, traffic, proofs_since=self._store.proofs_since)

    def unmet(self, fleet: Fleet, image: str) -> list[str]:
        """Return what an image (full digest) wants and its hosts do not have; [] where they cannot be asked."""
        with suppress(SaltException, OSError):
            return [plain(str(one)) for one in providers.unmet(self._load(fleet.provider), image)]
        return []

    def foreign(self, fleet: Fleet) -> list[Instance]:
        """Return the machines of a fleet that have another installation's tag, and a key on this master.

        They are ours, from before the store was lost: another master's machines have no key here. None count if a
        machine has our tag.
        """
        listed = self._load(fleet.provider).list(fleet.name)
        if any(is_ours(one, self._store.installation) for one in listed):
            return []
        others = [one for one in listed if one.installation and is_ours(one, one.installation)]
        keys = self._minions.with_key() if others else set()
        return [one for one in others if one.minion_id in keys]

    def lost(self, fleet: Fleet, ledger: Ledger) -> str | None:
        """Return a sentence if the store has no machine of a fleet, and those run that it had before it was lost."""
        return None if ledger.records() else unknown_machines.lost(fleet.name, self.foreign(fleet))

    def warning(self, fleet: Fleet, ledger: Ledger) -> str | None:
        """Return a sentence if the store was lost or is older than the machines of a fleet.

        None also where a provider cannot list its machines.
        """
        with suppress(SaltException):
            return self.lost(fleet, ledger) or unknown_machines.warning(fleet.name, self.recovery(fleet, ledger))
        return None

    def strangers(self, fleet: Fleet, ledger: Ledger) -> list[str]:
        """Return the minion ids of machines that run and that the store does not know, as far as they are listed."""
        known = ledger.records()
        with suppress(SaltException):
            ours = [one for one in self.recovery(fleet, ledger).reasons if one not in known]
            return ours if known else [*ours, *(one.minion_id for one in self.foreign(fleet))]
        return []

    def keyless(self, fleet: Fleet, ledger: Ledger) -> list[str]:
        """Return the minion ids of machines that were ready once, and have no key on this master any more.

        None if there are more of them than ``sick_limit`` allows: the keys are what is wrong then, or this master.
        """
        ready = [one.minion_id for one in ledger.records().values() if one.ready_since is not None and not one.doomed]
        found = sorted(set(ready) - self._minions.with_key()) if ready else []
        return found if len(found) <= max(1, fleet.sick_limit.up(fleet.size)) else []

    def recovery(self, fleet: Fleet, ledger: Ledger, ask: bool = False) -> Recovery:
        """Return what has to be written to the books of a fleet of machines that run.

        ``ask``: also ask the machines that boot, as the store says. Raises ``CommandExecutionError`` if a provider
        cannot list its machines.
        """
        records, loaded = ledger.records(), self._providers(fleet, ledger)
        listed = self._listed(fleet, ledger, loaded)
        unknown = [listed[minion_id] for minion_id in never_known(self._store, listed)]
        running = [one.instance for one in listed.values() if one.instance.running]
        known = [one for one in running if one.minion_id in records and not records[one.minion_id].doomed]
        doubtful = [one for one in known if phase(records[one.minion_id]) != "serving"]
        status, proven = None, set[str]()
        if fleet.traffic is not None and (unknown or doubtful):
            with suppress(SaltException):
                status = self._route(fleet.traffic).status()
        elif ask:
            boots = [one for one in doubtful if records[one.minion_id].ready_since is None]
            proven = self._healthy(self.world(fleet, ledger), records, boots)
        records = {**records, **ledger.records()}  # a driver may have put machines to work meanwhile
        unsound = {*ledger.tainted(), *(set(listed) - self._minions.with_key() if unknown else ())}
        books = Books(ledger.generations(), records, unsound, ledger.effective_size(fleet.size))
        found = recovery(fleet, books, unknown, known, status, proven, self._clock())
        lags = any(provider.settles for _, provider in loaded)  # what it does not list may be there
        return found if lags else without_absent(found, records, listed)

    def _healthy(self, world: World, records: Mapping[str, Record], machines: list[Instance]) -> set[str]:
        """Return which of the machines prove image and health."""
        calls = {
            one.minion_id: partial(world.probe, records[one.minion_id], one.address, False, ANSWERS_WITHIN)
            for one in machines
        }
        healthy: set[str] = set()
        for _ in range(ASKED if calls else 0):
            probes = self._ask_all(calls)
            healthy.update(minion_id for minion_id, probe in probes.items() if probe.health == "yes")
            calls = {minion_id: calls[minion_id] for minion_id, probe in probes.items() if probe.health == "unknown"}
        return healthy

    def _providers(self, fleet: Fleet, ledger: Ledger) -> list[tuple[ProviderSpec, Provider]]:
        """Return the providers that may have machines of a fleet."""
        launched = {record.generation for record in ledger.records().values()}
        used = [one.provider for number, one in ledger.generations().items() if number in launched]
        return [(spec, self._load(spec)) for spec in distinct([fleet.provider, *used])]

    @staticmethod
    def _listed(fleet: Fleet, ledger: Ledger, loaded: Sequence[tuple[ProviderSpec, Provider]]) -> dict[str, Listed]:
        """Return minion id to machine of all machines of a fleet, with the provider that lists each."""
        listed: dict[str, Listed] = {}
        for spec, provider in loaded:
            for one in provider.list(fleet.name):
                if is_ours(one, ledger.installation):
                    listed.setdefault(one.minion_id, Listed(one, spec))
        return listed


def loader(opts: Mapping[str, Any]) -> Callable[[ProviderSpec], Provider]:
    """Return a function that loads installed providers."""
    return lambda spec: providers.load(spec.name, spec.settings, opts)


def router(opts: Mapping[str, Any]) -> Callable[[TrafficSpec], Traffic]:
    """Return a function that loads installed traffic adapters."""
    return lambda spec: traffic.load(spec.name, spec.settings, opts)
