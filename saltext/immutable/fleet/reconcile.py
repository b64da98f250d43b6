"""``fleet.reconcile``, for the master's schedule: observe each fleet, save what was found, and give the commands.

`fleet.decide.reconcile` and `fleet.decide.sickness` decide what to do; machines are replaced by a rollout.
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

from saltext.immutable.fleet.books import revoked as revoked_images
from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.sickness import SicknessLog
from saltext.immutable.fleet.decide.reconcile import FleetStatus, Revoked, decide, failed_attempts, stuck
from saltext.immutable.fleet.decide.sickness import Diagnosis, Rhythm, Sickness, diagnose
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.interventions import Interventions, Notify
from saltext.immutable.fleet.observe import Stopped, observe
from saltext.immutable.fleet.operations import Failed, Operations
from saltext.immutable.fleet.unknown_machines import Recovery, alarm
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Held
from saltext.immutable.text import plain

FLEETS_AT_A_TIME = 4
ALARMS = ("alarm", "alarm over")

Open = Callable[[Stopped], AbstractContextManager[tuple[Operations, Notify]]]
"""Gives a thread operations and a notifier of its own."""
Collect = Callable[[str, Collection[str], bool], list[dict[str, Any]]]
"""Collects the orphans of a fleet (or ``all``), except of some fleets: see `Orphans.collect`."""


class FleetReconciler:
    """Reconciles one fleet."""

    def __init__(self, operations: Operations, notify: Notify, name: str, stopped: Stopped) -> None:
        self._operations, self._notify, self._name, self._stopped = operations, notify, name, stopped
        self._log = SicknessLog(operations.store, name)

    def reconcile(self, test: bool = False) -> dict[str, Any]:
        """Do what the fleet needs; return ``did``, ``reason`` and ``result`` (False: an operator has to act)."""
        try:
            outcome = self._reconcile(test)
        except Held as err:
            outcome = _outcome("busy", str(err))
        except Interrupted:
            raise
        except SaltException as err:
            outcome = _outcome("failed", plain(str(err)), failed=True)
        return {"fleet": self._name, **outcome}

    def _reconcile(self, test: bool) -> dict[str, Any]:
        fleet = self._operations.find(self._name, allow_removed=True)
        if why := self._operations.lost(self._name):
            if not test:
                self._alarm(why)
            return _outcome("alarm", why, failed=True)
        recovered = self._write_back(test)
        if why := alarm(self._name, recovered):
            if not test:
                self._alarm(why)
            return {**_outcome("alarm", why, failed=True), "recovered": sorted(recovered.reasons)}
        return self._decided(fleet, test)

    def _write_back(self, test: bool) -> Recovery:
        """Return what the store did not know of machines and is written back, or would be."""
        with suppress(SaltException):  # a fleet that cannot be listed, or is worked on, is dealt with below
            return self._operations.write_back(self._name, test)
        return Recovery()

    def _decided(self, fleet: Fleet, test: bool) -> dict[str, Any]:
        status = self._status(fleet)
        decision = decide(fleet, status, self._operations.clock())
        if decision.action == "observe":
            return self._observe(status.revoked, test)
        if decision.action == "roll" and not test:
            return self._run(self._operations.roll, "rolled", decision.reason)
        if decision.action in ("carry on", "roll") and test:
            return _outcome(f"would {decision.action}", decision.reason)
        if decision.action == "carry on":
            return self._run(self._operations.continue_rollout, "carried on", decision.reason)
        if decision.failed and not test:
            self._alarm(decision.reason, record=decision.action != "rest")  # the failed attempt is recorded already
        wait = {} if decision.until is None else {"again_in": round(decision.until - self._operations.clock())}
        did = {"leave": "left"}.get(decision.action, decision.action)
        return {**_outcome(did, decision.reason, failed=decision.failed), **wait}

    def _status(self, fleet: Fleet) -> FleetStatus:
        ledger, holder = self._operations.ledger(self._name), self._operations.holder(self._name)
        return FleetStatus(
            wanted=self._name in self._operations.definitions.fleets,
            held_by=str(holder) if holder else None,
            unfinished=ledger.unfinished(),
            settled=bool(ledger.lineage()),
            machines=bool(ledger.records()),
            failed_attempts=failed_attempts(ledger.rollouts()),
            closed=self._operations.closed(fleet),
            revoked=revoked_images.of_fleet(self._operations.store, fleet, ledger),
        )

    # Observe

    def _observe(self, revoked: Revoked, test: bool) -> dict[str, Any]:
        fleet = self._operations.ledger(self._name).with_effective_size(self._operations.definition(self._name))
        seen = observe(self._operations, fleet, self._stopped)
        if not test:
            known = dict.fromkeys(self._operations.ledger(self._name).records(), self._name)
            Interventions(self._operations, self._notify).report_forged(known)
        rhythm = self._log.rhythm()
        broken = rhythm is not None and rhythm.broken(seen.at, fleet.unreachable_for)
        found = diagnose(fleet, seen, self._log.sick(), broken)
        if not test:
            self._log.save(rhythm.looked(seen.at) if rhythm else Rhythm(seen.at), found.sick)
            if back := {one.minion_id: one.restarted for one in seen.machines if one.restarted and one.health == "yes"}:
                self._log.came_back(back)
        details = {
            "sick": {one.minion_id: {"why": one.reason, "for": round(seen.at - one.since)} for one in found.sick},
            "waits": [*found.waits, *filter(None, [stuck(fleet, revoked)])],
        }
        return {**self._act(found, test), **{key: value for key, value in details.items() if value}}

    # Act

    def _act(self, found: Diagnosis, test: bool) -> dict[str, Any]:
        if found.alarm is not None:
            if not test:
                self._alarm(found.alarm)
            return _outcome("alarm", found.alarm, failed=True)
        if not found.reasons:
            outcome = _outcome("nothing", "; ".join(found.waits) or "every machine is as it should be")
            return outcome if test else self._end_alarm(outcome)
        reason = "; ".join(found.reasons)
        if test:
            return _outcome("would mend", reason)
        return self._repair(found.taints, reason)

    def _repair(self, taints: Sequence[Sickness], reason: str) -> dict[str, Any]:
        interventions = Interventions(self._operations, self._notify)
        for one in taints:
            entry = self._operations.audit_entry("tainted", one.minion_id, self._name, one.reason)
            interventions.add_taint("sick", entry)
        try:
            return self._run(self._operations.repair, "mended", reason)
        finally:
            self._save_observed()

    def _run(self, command: Callable[[str], object], did: str, reason: str) -> dict[str, Any]:
        """Give a command, and fire an alarm if it fails."""
        try:
            command(self._name)
        except Failed as err:
            self._alarm(str(err).partition("\n")[0])
            return _outcome("failed", plain(str(err)), failed=True)
        return self._end_alarm(_outcome(did, reason))

    def _save_observed(self) -> None:
        """Save that the fleet was observed until now: the driver of a rollout did so, and that is no break."""
        if rhythm := self._log.rhythm():
            now, sick = self._operations.clock(), self._log.sick()
            self._log.save(replace(rhythm, at=max(rhythm.at, now)), list(sick.values()))

    # Alarms

    def _alarm(self, reason: str, record: bool = True) -> None:
        """Fire an alarm; write it to the audit log if ``record`` and if the last entry is another one."""
        entry = self._audit_entry("alarm", plain(reason))
        last = self._operations.audit.last_of_fleet(self._name, ALARMS)
        if record and (last is None or (last.what, last.reason) != (entry.what, entry.reason)):
            self._operations.audit.write(entry)
        data = {"fleet": self._name, "reason": entry.reason, "at": entry.at}
        self._notify(f"alarm {self._name}: {entry.reason}", f"{self._name}/alarm", **data)

    def _end_alarm(self, outcome: dict[str, Any]) -> dict[str, Any]:
        """Write to the audit log that an alarm is over, if there was one."""
        last = self._operations.audit.last_of_fleet(self._name, ALARMS)
        if last is not None and last.what == "alarm":
            self._operations.audit.write(self._audit_entry("alarm over", outcome["reason"]))
        return outcome

    def _audit_entry(self, what: str, reason: str) -> AuditEntry:
        return replace(self._operations.audit_entry(what, "", self._name, reason), minion_id=None)


def _outcome(did: str, reason: str, failed: bool = False) -> dict[str, Any]:
    return {"did": did, "reason": reason, "result": not failed}


def in_threads(
    names: Sequence[str], reconcile_one: Callable[[str], dict[str, Any]], stopped: Stopped
) -> dict[str, dict[str, Any]]:
    """Reconcile FLEETS_AT_A_TIME fleets at a time, and return fleet to outcome.

    Raises ``Interrupted`` if told to stop: no further fleet is begun then.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        todo.put(name)
    found: dict[str, dict[str, Any]] = {}
    errors: list[BaseException] = []

    def work() -> None:
        with suppress(queue.Empty):
            while not stopped():
                name = todo.get_nowait()
                try:
                    found[name] = reconcile_one(name)
                except BaseException as err:
                    errors.append(err)
                    return

    # Salt's loader keeps the dunders of a module, such as __opts__, in the context of a thread.
    context = [contextvars.copy_context() for _ in names[:FLEETS_AT_A_TIME]]
    threads = [threading.Thread(target=one.run, args=(work,), daemon=True) for one in context]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    if stopped():
        raise Interrupted("stopped; the next `salt-run fleet.reconcile` continues")
    return {name: found[name] for name in names}


def reconcile(
    operations: Operations, name: str, open_: Open, collect: Collect | None, test: bool = False
) -> dict[str, Any]:
    """Reconcile a fleet (or ``all``), then collect orphans (``collect`` None: leave them alone).

    Keys of the result: ``fleets`` (fleet to outcome), ``orphans`` or ``waits``, and ``retcode``: 1 if an operator has
    to act.
    """
    names = operations.names() if name == "all" else [operations.find(name, allow_removed=True).name]
    with operations.stop_signals() as stopped:

        def reconcile_one(one: str) -> dict[str, Any]:
            try:
                with open_(stopped) as (own, notify):
                    return FleetReconciler(own, notify, one, stopped).reconcile(test)
            except SaltException as err:
                return {"fleet": one, **_outcome("failed", plain(str(err)), failed=True)}

        found = in_threads(names, reconcile_one, stopped)
    failed = [one for one, outcome in found.items() if not outcome["result"]]
    orphans = {} if collect is None else _collect(lambda: collect(name, failed, test))
    has_stuck = "waits" in orphans or any(one["done"].startswith("stays") for one in orphans.get("orphans", []))
    return {"fleets": found, **orphans, "retcode": int(bool(failed) or has_stuck)}


def _collect(collect: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
    try:
        return {"orphans": collect()}
    except SaltException as err:
        return {"waits": f"no orphans are collected: {plain(str(err))}"}
