"""What an operator asks of a fleet: roll, roll back, destroy, and the questions about it."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import providers
from saltext.immutable.fleet.checks import require_answers
from saltext.immutable.fleet.drive import Driver
from saltext.immutable.fleet.effects import Effects, Pool
from saltext.immutable.fleet.ledger import Entry, Generation, Ledger, Record, fleets_with_machines
from saltext.immutable.fleet.plan import Action, Kind, Machine, Phase, Rollout, forecast
from saltext.immutable.fleet.taints import Deed, Taints
from saltext.immutable.fleet.world import Minions, World
from saltext.immutable.providers import Instance, Provider
from saltext.immutable.spec.model import Definitions, Fleet, ProviderSpec
from saltext.immutable.store import Holder, Lease, Store

LAST_WORDS = 25
"""Lines of a failed machine's console that an error shows."""

Say = Callable[[Entry], None]


@dataclass(frozen=True)
class Forecast:
    """What a command would do."""

    fleet: str
    kind: Kind
    current: int | None
    image: str | None
    """Name of the image that would run; None: no machine would."""
    actions: tuple[Action, ...]
    continues: bool
    """An interrupted rollout would be carried on."""

    @property
    def nothing(self) -> bool:
        """Tell whether all is as it should be."""
        return not self.actions and not self.continues


class Failed(CommandExecutionError):  # type: ignore[misc]
    """A rollout ended otherwise than it was asked to."""


class Operations:
    """Commands on fleets, with everything they need from the outside given to them."""

    def __init__(
        self,
        store: Store,
        definitions: Definitions,
        minions: Minions,
        load: Callable[[ProviderSpec], Provider],
        say: Say,
        *,
        clock: Callable[[], float] = time.time,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        effects: Callable[[Callable[[], bool]], Effects] | None = None,
        user: str | None = None,
        jid: str | None = None,
    ) -> None:
        self.store, self.definitions, self.minions = store, definitions, minions
        self._load, self._say, self.clock, self._token = load, say, clock, token
        self.effects = effects or (lambda stopped: Pool(minions.poll, stopped))
        self.user, self.jid = user, jid
        self.taints = Taints(store)

    # Commands

    def roll(self, name: str, image: str | None = None) -> Rollout | None:
        """Bring a fleet to the image of its channel (or to ``image``); None when it is there already."""
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            if unfinished and unfinished.kind == "roll" and not unfinished.outcome:
                carried_on = self._drive(fleet, ledger, lease, unfinished)
                return self._roll(fleet, ledger, lease, image) or carried_on
            return self._roll(fleet, ledger, lease, image)

    def _roll(self, fleet: Fleet, ledger: Ledger, lease: Lease, image: str | None) -> Rollout | None:
        now = self.clock()
        generation = ledger.pin(lease, self._image(fleet, image), fleet.provider, now)
        if not ledger.unfinished() and self._look(fleet, ledger, "roll", generation.number).nothing:
            return None
        return self._drive(fleet, ledger, lease, ledger.begin(lease, "roll", generation.number, now))

    def rollback(self, name: str, generation: int | None = None) -> Rollout | None:
        """Bring a fleet back to its last good generation (or to a named one), without baking."""
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            target = self._way_back(ledger, generation)
            unfinished = ledger.unfinished()
            if unfinished is None and self._look(fleet, ledger, "rollback", target).nothing:
                return None
            again = unfinished and (unfinished.kind, unfinished.target) == ("rollback", target)
            if unfinished is None or unfinished.outcome or not again:
                unfinished = ledger.begin(lease, "rollback", target, self.clock())
            return self._drive(fleet, ledger, lease, unfinished)

    def destroy(self, name: str) -> Rollout | None:
        """Let all machines and keys of a fleet go; its history stays."""
        fleet, ledger = self.find(name, gone=True), Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            nothing = self._look(fleet, ledger, "destroy", None).nothing and not ledger.lineage()
            if nothing and unfinished is None:
                return None
            if unfinished is None or unfinished.outcome or unfinished.kind != "destroy":
                unfinished = ledger.begin(lease, "destroy", None, self.clock())
            return self._drive(fleet, ledger, lease, unfinished)

    # Questions

    def foresee(self, name: str, kind: Kind, *, generation: int | None = None, image: str | None = None) -> Forecast:
        """Return what a command would do now, if all went well. Nothing is done."""
        ledger = Ledger(self.store, name)
        if kind == "destroy":
            return self._look(self.find(name, gone=True), ledger, kind, None)
        fleet = self.definition(name)
        if kind == "rollback":
            return self._look(fleet, ledger, kind, self._way_back(ledger, generation))
        digest, known = self._image(fleet, image), ledger.generations()
        newest = known[max(known)] if known else None
        if newest and (newest.image, newest.provider) == (digest, fleet.provider):
            return self._look(fleet, ledger, kind, newest.number)
        return self._look(fleet, ledger, kind, len(known) + 1, digest)

    def definition(self, name: str) -> Fleet:
        """Return what the pillar says of a fleet whose machines are to be launched."""
        fleet = self.find(name)
        require_answers(fleet)
        return fleet

    def names(self) -> list[str]:
        """Return the fleets that are in the pillar or have machines."""
        return sorted({*self.definitions.fleets, *fleets_with_machines(self.store)})

    def ledger(self, name: str) -> Ledger:
        """Return the books of a fleet that is in the pillar or was there once."""
        self.find(name, gone=True)
        return Ledger(self.store, name)

    def instances(self, name: str) -> dict[str, Instance]:
        """Return a fleet's machines as their providers list them, by minion id."""
        world = self.world(self.find(name, gone=True), Ledger(self.store, name))
        return {instance.minion_id: instance for instance in world.list()}

    def deed(self, what: str, minion_id: str, fleet: str | None, reason: str) -> Deed:
        """Return a line of the journal: what is done here and now, by the user that Salt knows."""
        return Deed(self.clock(), fleet, minion_id, what, reason, self.user, self.jid)

    def holder(self, name: str) -> Holder | None:
        """Return who works on a fleet at the moment."""
        return self.store.holder(f"fleet {name}")

    def image_name(self, generation: Generation | None) -> str | None:
        """Return what people call a generation's image, also after it was deleted."""
        if generation is None:
            return None
        known = {image.digest: image.name for image in self.store.images()}
        return known.get(generation.image, f"{generation.image[:12]} (deleted)")

    # How

    def _drive(self, fleet: Fleet, ledger: Ledger, lease: Lease, rollout: Rollout) -> Rollout:
        with signals() as stopped:
            driver = Driver(
                fleet,
                replace(rollout, progress_at=self.clock()),
                ledger,
                lease,
                self.world(fleet, ledger, rollout.source, rollout.target),
                self.effects(stopped),
                clock=self.clock,
                new_id=lambda: fleet.minion_id.format(token=self._token()),
                say=self._say,
                stopped=stopped,
            )
            ended = driver.run()
        if ended.outcome != "done":
            raise Failed(_told(ended, ledger.entries(ended.id)))
        return ended

    def _look(self, fleet: Fleet, ledger: Ledger, kind: Kind, target: int | None, image: str | None = None) -> Forecast:
        now, unfinished, lineage = self.clock(), ledger.unfinished(), ledger.lineage()
        source = lineage[-1] if lineage else None
        rollout = Rollout(0, fleet.name, kind, source, target, ledger.old_size(), started=now, progress_at=now)
        instances = {one.minion_id: one for one in self.world(fleet, ledger).list()}
        machines = list(_machines(ledger.records(), instances, ledger.tainted(), now))
        generation = ledger.generations().get(target) if target is not None else None
        return Forecast(
            fleet.name,
            kind,
            source,
            self.store.image(image).name if image else self.image_name(generation),
            tuple(forecast(fleet, rollout, machines, now)),
            continues=unfinished is not None or any(m.phase == "doomed" for m in machines),
        )

    def world(self, fleet: Fleet, ledger: Ledger, *numbers: int | None) -> World:
        """Return the fleet's world: generations that have machines, or get some, may have other settings."""
        generations = ledger.generations()
        needed = {record.generation for record in ledger.records().values()}.union(numbers)
        default = self._load(fleet.provider)
        loaded = [(fleet.provider, default)]
        by_number: dict[int, Provider] = {}
        for number, generation in generations.items():
            if number in needed:
                found = [provider for spec, provider in loaded if spec == generation.provider]
                by_number[number] = found[0] if found else self._load(generation.provider)
                loaded.append((generation.provider, by_number[number]))
        return World(fleet, ledger.installation, generations, by_number, default, self.minions, self.clock)

    def find(self, name: str, gone: bool = False) -> Fleet:
        """Return the definition of a fleet; of one that left the pillar, what is needed to destroy it."""
        fleets = self.definitions.fleets
        if name in fleets:
            return fleets[name]
        history = Ledger(self.store, name).generations() if gone else {}
        if not history:
            raise SaltInvocationError(
                f"immutable:fleets:{name} is not in the pillar; there are: {', '.join(sorted(fleets)) or 'none'}"
            )
        return Fleet(name, recipe="", size=0, minion_id="", provider=history[max(history)].provider)

    def _image(self, fleet: Fleet, ref: str | None) -> str:
        return self.store.image(ref or f"{fleet.recipe}:{fleet.channel}").digest

    def _way_back(self, ledger: Ledger, number: int | None) -> int:
        """Return the generation to roll back to; its image must be there."""
        lineage, unfinished = ledger.lineage(), ledger.unfinished()
        if number is None and unfinished and unfinished.kind == "rollback":
            number = unfinished.target
        if number is None:
            # While a rollout to another generation is unfinished, the last good one is what it came from.
            good = lineage if unfinished and unfinished.target != unfinished.source else lineage[:-1]
            if not good:
                known = ", ".join(map(str, ledger.generations())) or "none"
                raise SaltInvocationError(
                    f"fleet {ledger.fleet} has no good generation to go back to; "
                    f"name one with generation=N (there are: {known})"
                )
            number = good[-1]
        self.store.image(ledger.generation(number).image)
        return number

    def lease(self, name: str) -> AbstractContextManager[Lease]:
        """Return the right to work on a fleet."""
        return self.store.lease(f"fleet {name}", user=self.user, jid=self.jid)


def loader(opts: Mapping[str, Any]) -> Callable[[ProviderSpec], Provider]:
    """Return what loads the providers that are installed."""
    return lambda spec: providers.load(spec.name, spec.settings, opts)


def _machines(
    records: Mapping[str, Record], instances: Mapping[str, Instance], taints: Mapping[str, str], now: float
) -> Iterator[Machine]:
    """Return the machines as far as one list tells."""
    for record in records.values():
        instance = instances.get(record.minion_id)
        phase: Phase = "doomed" if record.doomed else "serving" if record.ready_since is not None else "booting"
        lost = record.ref is not None and (instance is None or not instance.running)
        fault = "it is gone or has stopped" if lost and not record.doomed else None
        yield Machine(
            record.minion_id,
            record.generation,
            phase,
            record.born,
            since=now,
            health="yes" if phase == "serving" and not fault else "unknown",
            fault=fault,
            taint=taints.get(record.minion_id),
        )
    for instance in instances.values():
        if instance.minion_id not in records:
            fault = "it is tagged as ours but is in no book"
            yield Machine(instance.minion_id, instance.generation, "booting", instance.born, since=now, fault=fault)


def _told(rollout: Rollout, entries: list[Entry]) -> str:
    """Say how a rollout ended and why, with the last words of the machines that failed."""
    lines = [f"fleet {rollout.fleet}: {rollout.kind} {rollout.outcome}: {rollout.reason}"]
    for entry in entries:
        if entry.what == "console":
            lines += [f"--- console of {entry.minion_id} ---", *entry.reason.rstrip().splitlines()[-LAST_WORDS:]]
    return "\n".join(lines)


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one interrupts."""
    wish = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wish.is_set
        return

    def hear(signum: int, _frame: object) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
