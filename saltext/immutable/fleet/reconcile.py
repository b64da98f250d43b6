"""Keep fleets as they should be, for the master's schedule: look at each, write down what was seen, give the commands.

What to do is decided in ``reconcile`` and ``diagnosis``; machines are replaced by a rollout, as everywhere.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from salt.exceptions import SaltException

from saltext.immutable.fleet import observe
from saltext.immutable.fleet.books import revoked as revoked_images
from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.sickness import SicknessLog
from saltext.immutable.fleet.decide import diagnosis, reconcile
from saltext.immutable.fleet.decide.diagnosis import Diagnosis, Sickness
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.interventions import Care, Tell
from saltext.immutable.fleet.observe import Stopped
from saltext.immutable.fleet.operations import Failed, Operations
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Held
from saltext.immutable.text import plain

FLEETS_AT_A_TIME = 4
ALARMS = ("alarm", "alarm over")

Open = Callable[[str, Stopped], AbstractContextManager[tuple[Operations, Tell]]]
"""Gives a thread operations of its own, and what tells of the fleet that is named."""
Collect = Callable[[str, Collection[str], bool], list[dict[str, Any]]]
"""Collects orphans of a fleet, or of all, but of those named."""


class Upkeep:
    """One fleet's upkeep."""

    def __init__(self, operations: Operations, tell: Tell, name: str, stopped: Stopped) -> None:
        self._operations, self._tell, self._name, self._stopped = operations, tell, name, stopped
        self._memory = SicknessLog(operations.store, name)

    def tend(self, test: bool = False) -> dict[str, Any]:
        """Do what the fleet needs, and return what that was and why; ``result`` is False where somebody has to know."""
        try:
            told = self._tended(test)
        except Held as err:
            told = _told("busy", str(err))
        except Interrupted:
            raise
        except SaltException as err:
            told = _told("failed", plain(str(err)), failed=True)
        return {"fleet": self._name, **told}

    def _tended(self, test: bool) -> dict[str, Any]:
        fleet = self._operations.find(self._name, gone=True)
        standing = self._standing(fleet)
        way = reconcile.way(fleet, standing, self._operations.clock())
        if way.course == "look":
            return self._looked(standing.revoked, test)
        if way.course == "roll" and not test:
            return self._driven(self._operations.roll, "rolled", way.reason)
        if way.course in ("carry on", "roll") and test:
            return _told(f"would {way.course}", way.reason)
        if way.course == "carry on":
            return self._driven(self._operations.carry_on, "carried on", way.reason)
        if way.failed and not test:
            self._alarm(way.reason, news=way.course != "rest")  # that the trial failed is written down already
        rests = {} if way.until is None else {"again_in": round(way.until - self._operations.clock())}
        return {**_told({"leave": "left"}.get(way.course, way.course), way.reason, failed=way.failed), **rests}

    def _standing(self, fleet: Fleet) -> reconcile.Standing:
        ledger, holder = self._operations.ledger(self._name), self._operations.holder(self._name)
        return reconcile.Standing(
            wanted=self._name in self._operations.definitions.fleets,
            held_by=str(holder) if holder else None,
            unfinished=ledger.unfinished(),
            settled=bool(ledger.lineage()),
            machines=bool(ledger.records()),
            trials=reconcile.trials(ledger.rollouts()),
            closed=self._operations.closed(fleet),
            revoked=revoked_images.of_fleet(self._operations.store, fleet, ledger),
        )

    # Look

    def _looked(self, revoked: reconcile.Revoked, test: bool) -> dict[str, Any]:
        fleet = self._operations.ledger(self._name).with_effective_size(self._operations.definition(self._name))
        look = observe.look(self._operations, fleet, self._stopped)
        rhythm = self._memory.rhythm()
        broken = rhythm is not None and rhythm.broken(look.at, fleet.unreachable_for)
        found = diagnosis.diagnose(fleet, look, self._memory.sick(), broken)
        if not test:
            self._memory.save(rhythm.looked(look.at) if rhythm else diagnosis.Rhythm(look.at), found.sick)
        seen = {
            "sick": {one.minion_id: {"why": one.told, "for": round(look.at - one.since)} for one in found.sick},
            "waits": [*found.waits, *filter(None, [reconcile.stuck(fleet, revoked)])],
        }
        return {**self._acted(found, test), **{key: value for key, value in seen.items() if value}}

    # Act

    def _acted(self, found: Diagnosis, test: bool) -> dict[str, Any]:
        if found.alarm is not None:
            if not test:
                self._alarm(found.alarm)
            return _told("alarm", found.alarm, failed=True)
        if not found.reasons:
            told = _told("nothing", "; ".join(found.waits) or "every machine is as it should be")
            return told if test else self._quiet(told)
        reason = "; ".join(found.reasons)
        if test:
            return _told("would mend", reason)
        return self._mended(found.taints, reason)

    def _mended(self, taints: Sequence[Sickness], reason: str) -> dict[str, Any]:
        care = Care(self._operations, self._tell)
        for one in taints:
            care.mark("sick", self._operations.audit_entry("tainted", one.minion_id, self._name, one.told))
        try:
            return self._driven(self._operations.mend, "mended", reason)
        finally:
            self._went_on()

    def _driven(self, command: Callable[[str], object], did: str, reason: str) -> dict[str, Any]:
        """Give a command; one that fails alarms."""
        try:
            command(self._name)
        except Failed as err:
            self._alarm(str(err).partition("\n")[0])
            return _told("failed", plain(str(err)), failed=True)
        return self._quiet(_told(did, reason))

    def _went_on(self) -> None:
        """Take in that a driver looked at the fleet all the while: that was no break."""
        if rhythm := self._memory.rhythm():
            now, known = self._operations.clock(), self._memory.sick()
            self._memory.save(replace(rhythm, at=max(rhythm.at, now)), list(known.values()))

    # Tell

    def _alarm(self, reason: str, news: bool = True) -> None:
        """Fire an alarm; write it down where it is ``news``, and not what was written last."""
        deed = self._deed("alarm", plain(reason))
        last = self._operations.audit.last_of_fleet(self._name, ALARMS)
        if news and (last is None or (last.what, last.reason) != (deed.what, deed.reason)):
            self._operations.audit.write(deed)
        data = {"fleet": self._name, "reason": deed.reason, "at": deed.at}
        self._tell(f"alarm {self._name}: {deed.reason}", f"{self._name}/alarm", **data)

    def _quiet(self, told: dict[str, Any]) -> dict[str, Any]:
        """Write down that what somebody was alarmed about is over."""
        last = self._operations.audit.last_of_fleet(self._name, ALARMS)
        if last is not None and last.what == "alarm":
            self._operations.audit.write(self._deed("alarm over", told["reason"]))
        return told

    def _deed(self, what: str, reason: str) -> AuditEntry:
        return replace(self._operations.audit_entry(what, "", self._name, reason), minion_id=None)


def _told(did: str, reason: str, failed: bool = False) -> dict[str, Any]:
    return {"did": did, "reason": reason, "result": not failed}


def at_once(names: Sequence[str], tend: Callable[[str], dict[str, Any]], stopped: Stopped) -> dict[str, dict[str, Any]]:
    """Tend some fleets at a time, each on its own, and return what was done; begin no more once we are to stop."""
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        todo.put(name)
    found: dict[str, dict[str, Any]] = {}
    broken: list[BaseException] = []

    def work() -> None:
        with suppress(queue.Empty):
            while not stopped():
                name = todo.get_nowait()
                try:
                    found[name] = tend(name)
                except BaseException as err:
                    broken.append(err)
                    return

    # Salt's loader finds what it gave to a module, such as __opts__, by the context of the thread.
    context = [contextvars.copy_context() for _ in names[:FLEETS_AT_A_TIME]]
    threads = [threading.Thread(target=one.run, args=(work,), daemon=True) for one in context]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    if stopped():
        raise Interrupted("stopped; the next `salt-run fleet.reconcile` goes on")
    return {name: found[name] for name in names}


def upkeep(
    operations: Operations, name: str, open_: Open, collect: Collect | None, test: bool = False
) -> dict[str, Any]:
    """Tend a fleet, or all, then collect what nobody wants; ``retcode`` is 1 where somebody has to know."""
    names = operations.names() if name == "all" else [operations.find(name, gone=True).name]
    with operations.hear() as stopped:

        def tend(one: str) -> dict[str, Any]:
            try:
                with open_(one, stopped) as (own, tell):
                    return Upkeep(own, tell, one, stopped).tend(test)
            except SaltException as err:
                return {"fleet": one, **_told("failed", plain(str(err)), failed=True)}

        found = at_once(names, tend, stopped)
    failed = [one for one, told in found.items() if not told["result"]]
    orphans = {} if collect is None else _collected(lambda: collect(name, failed, test))
    stuck = "waits" in orphans or any(one["done"].startswith("stays") for one in orphans.get("orphans", []))
    return {"fleets": found, **orphans, "retcode": int(bool(failed) or stuck)}


def _collected(collect: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    try:
        return {"orphans": collect()}
    except SaltException as err:
        return {"waits": f"nothing is collected: {plain(str(err))}"}
