"""The results of the commands on fleets, as data for JSON: forecasts, ended rollouts, status and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.books.audit import AuditEntry
from saltext.immutable.fleet.books.ledger import Entry, Ledger, Record
from saltext.immutable.fleet.books.revoked import revoked_in_use
from saltext.immutable.fleet.books.sickness import SicknessLog
from saltext.immutable.fleet.books.taints import Taint
from saltext.immutable.fleet.decide.sickness import NAMED, without_id
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.fleet.decide.steps import goal
from saltext.immutable.fleet.drive.track import phase
from saltext.immutable.fleet.observe import observe
from saltext.immutable.fleet.operations import Forecast, Operations
from saltext.immutable.providers import Instance
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store.schema import orders

AS_IT_SHOULD_BE = "every machine is as it should be"


def warnings(opts: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option of the master that weakens the enrolment of machines."""
    return [
        f"the master has {option}: True, so any minion may enrol under any id; set it to False"
        for option in ("auto_accept", "open_mode")
        if opts.get(option)
    ]


def describe_forecast(forecast: Forecast) -> dict[str, Any]:
    """Return what a command would do: each launch and each destroyed machine, in order, with its reason."""
    destroyed = [action.minion_id for action in forecast.actions if action.kind == "destroy"]
    launches = sum(action.kind == "launch" for action in forecast.actions)
    if forecast.nothing:
        verdict, reason = "done", AS_IT_SHOULD_BE
    else:
        verdict = "continue" if forecast.continues else forecast.kind
        reason = f"{launches} to launch, {len(destroyed)} to destroy"
        reason += f"; it would not end: {forecast.stuck}" if forecast.stuck else ""
    return {
        "fleet": forecast.fleet,
        "verdict": verdict,
        "reason": reason,
        "generation": forecast.current,
        "image": forecast.image,
        "changes": {"launch": launches, "destroy": destroyed} if forecast.actions else {},
        "actions": [_without_empty(asdict(action)) for action in forecast.actions],
    }


def describe_result(operations: Operations, name: str, rollout: Rollout | None) -> dict[str, Any]:
    """Return the result of a command with the timeline of its rollout (None: there was nothing to do)."""
    ledger = operations.ledger(name)
    lineage = ledger.lineage()
    generation = ledger.generation(lineage[-1]) if lineage else None
    result: dict[str, Any] = {
        "fleet": name,
        "outcome": (rollout.outcome or "under way") if rollout else "done",
        "generation": generation.number if generation else None,
        "image": operations.image_name(generation),
        "size": ledger.size(),
    }
    if rollout is None:
        return {**result, "reason": _nothing_done(operations, name), "seconds": 0.0, "timeline": []}
    entries = ledger.entries(rollout.id)
    seconds = round((rollout.ended or rollout.started) - rollout.started, 2)
    return {
        **result,
        "reason": rollout.reason or rollout.verdict,
        "seconds": seconds,
        "timeline": [describe_entry(one, rollout.started) for one in entries],
    }


def _nothing_done(operations: Operations, name: str) -> str:
    """Return why nothing was done to a fleet; it is observed, so that no machine is called healthy unseen."""
    if name not in operations.definitions.fleets:
        return AS_IT_SHOULD_BE
    fleet = operations.ledger(name).with_effective_size(operations.find(name))
    try:
        with operations.stop_signals() as stopped:
            seen = observe(operations, fleet, stopped)
    except CommandExecutionError as err:
        return f"there is nothing to replace, but the machines could not be observed: {err}"
    members = [one for one in seen.machines if one.kept_until is None and not one.left]
    unsound = [
        f"{one.minion_id}: {without_id(one.note, one.minion_id) or one.there}" for one in members if one.health != "yes"
    ]
    if not unsound:
        return AS_IT_SHOULD_BE
    return (
        f"there is nothing to replace, but {len(unsound)} of {len(members)} machines are not known to be healthy: "
        f"{'; '.join(unsound[:NAMED])}; `salt-run fleet.reconcile {name}` replaces those that stay so"
    )


def status(operations: Operations, name: str, now: float) -> dict[str, Any]:
    """Return the machines of a fleet, its last rollout, open orders and the process that works on it."""
    ledger = operations.ledger(name)
    lineage, rollouts = ledger.lineage(), ledger.rollouts()
    generation = ledger.generation(lineage[-1]) if lineage else None
    holder = operations.holder(name)
    records, (instances, unlisted) = list(ledger.records().values()), _listed(operations, name)
    taints = operations.taints.of_fleet(name)
    fleet = ledger.with_effective_size(operations.find(name, allow_removed=True))
    return {
        "fleet": name,
        "generation": generation.number if generation else None,
        "image": operations.image_name(generation),
        "revoked": revoked_in_use(operations.store, ledger),
        "warnings": operations.warnings(name),
        "size": sum(not record.doomed and record.kept_until is None for record in records),
        **_sizes(operations, ledger),
        "tainted": sum(record.minion_id in taints for record in records),
        "machines": _machines(operations, ledger, records, instances, now),
        "unlisted": unlisted,
        "rollout": _with_progress(fleet, rollouts[0], records) if rollouts else None,
        "orders": [str(order) for order in ledger.orders() if order.rollout == _unfinished(ledger)],
        "held_by": str(holder) if holder else None,
    }


def _listed(operations: Operations, name: str) -> tuple[dict[str, Instance] | None, str | None]:
    """Return the machines that the provider lists, or None and why it cannot list them."""
    try:
        return operations.instances(name), None
    except CommandExecutionError as err:
        return None, f"the provider cannot list the machines, so this is only what the store has: {err}"


def _sizes(operations: Operations, ledger: Ledger) -> dict[str, Any]:
    """Return the effective size, and a sentence if ``fleet.scale`` set it."""
    declared = operations.definitions.fleets.get(ledger.fleet)
    if declared is None:
        return {"wanted": None, "size_set": None}
    effective = ledger.effective_size(declared.size)
    scaled = f"{effective} by fleet.scale, until the size in the pillar ({declared.size}) is changed"
    return {"wanted": effective, "size_set": scaled if effective != declared.size else None}


def _unfinished(ledger: Ledger) -> int | None:
    """Return the id of the unfinished rollout, to which orders may apply."""
    rollout = ledger.unfinished()
    return rollout.id if rollout else None


def _with_progress(fleet: Fleet, rollout: Rollout, records: Sequence[Record]) -> dict[str, Any]:
    """Return a rollout; if it is unfinished, with ``progress``: how many machines are ready, of how many."""
    result = describe_rollout(rollout)
    if rollout.outcome not in (None, "paused"):
        return {**result, "progress": None}
    aim = goal(fleet, rollout)
    ready = [record for record in records if phase(record) == "serving"]
    right = sum(aim.mending or record.generation == aim.generation for record in ready)
    return {**result, "progress": [right, aim.size] if aim.size else None}


def history(operations: Operations, name: str) -> dict[str, Any]:
    """Return a fleet's generations, rollouts, orders and audit log, the newest first."""
    ledger = operations.ledger(name)
    return {
        "fleet": name,
        "generations": [
            {
                "generation": one.number,
                "image": operations.image_name(one),
                "provider": one.provider.name,
                "created": date(one.created),
            }
            for one in reversed(ledger.generations().values())
        ],
        "rollouts": [describe_rollout(one) for one in ledger.rollouts()],
        "orders": list_orders(operations, name),
        "deeds": [_audit_entry(one) for one in operations.audit.entries(name)],
    }


def status_of_all(operations: Operations, now: float) -> dict[str, Any]:
    """Return the status of every fleet, and the tainted machines that no fleet launched."""
    adopted = {minion_id: _reasons(taints) for minion_id, taints in operations.taints.of_fleet(None).items()}
    return {"fleets": {name: status(operations, name, now) for name in operations.names()}, "adopted": adopted}


def history_of_all(operations: Operations) -> dict[str, Any]:
    """Return the history of every fleet, and the audit log of machines that no fleet launched."""
    fleets = {name: history(operations, name) for name in operations.names()}
    return {"fleets": fleets, "adopted": [_audit_entry(one) for one in operations.audit.entries(None)]}


def _audit_entry(one: AuditEntry) -> dict[str, Any]:
    return {"at": date(one.at), **{key: value for key, value in asdict(one).items() if key not in ("at", "fleet")}}


def _reasons(taints: Sequence[Taint]) -> list[str]:
    return [taint.reason for taint in taints]


def _machines(
    operations: Operations,
    ledger: Ledger,
    records: Sequence[Record],
    instances: Mapping[str, Instance] | None,
    now: float,
) -> list[dict[str, Any]]:
    """Return the machines with all that the store and the provider's list have about them."""
    known, taints = ledger.generations(), operations.taints.of_fleet(ledger.fleet)
    protected = ledger.protected()
    sick = SicknessLog(operations.store, ledger.fleet).sick()
    routed = any(generation.traffic for generation in known.values())
    machines = []
    for record in records:
        minion_id, sickness = record.minion_id, sick.get(record.minion_id)
        machines.append(
            {
                **_machine(record, (instances or {}).get(minion_id), now, listed=instances is not None),
                "image": operations.image_name(known.get(record.generation)),
                "traffic": record.traffic if routed else None,
                "health": sickness.ailment if sickness else "yes" if record.healthy_since is not None else None,
                "note": f"{sickness.ailment} for {round(now - sickness.since)} s: {sickness.note}"
                if sickness
                else None,
                "tainted": _reasons(taints.get(minion_id, [])),
                "protected": protected.get(minion_id),
                "kept_for": max(0, round(record.kept_until - now)) if record.kept_until is not None else None,
            }
        )
    return machines


def _machine(record: Record, instance: Instance | None, now: float, listed: bool) -> dict[str, Any]:
    shown: str = "kept" if record.kept_until is not None else phase(record)
    if listed and not record.doomed and (instance is None or not instance.running):
        shown = "stopped" if instance else "absent"
    return {
        "minion_id": record.minion_id,
        "generation": record.generation,
        "phase": shown,
        "address": instance.address if instance else None,
        "age": round(now - record.born),
    }


def list_orders(operations: Operations, fleet: str) -> list[dict[str, Any]]:
    """Return the orders of operators to a fleet's rollouts, the newest first; ``taken``: a driver has applied it."""
    query = sa.select(orders).where(orders.c.fleet == fleet).order_by(orders.c.id.desc())
    with operations.store.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    keys = ("rollout", "what", "who", "reason")
    return [{"at": date(row["at"]), **{key: row[key] for key in keys}, "taken": bool(row["taken"])} for row in rows]


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout: kind, generations, times, step, outcome and reason."""
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "from": rollout.source,
        "to": rollout.target,
        "started": date(rollout.started),
        "seconds": round(rollout.ended - rollout.started, 1) if rollout.ended else None,
        "outcome": rollout.outcome or "unfinished",
        "paused_by": rollout.paused_by,
        "step": rollout.step + 1,
        "approved": rollout.approved,
        "verdict": rollout.verdict,
        "reason": rollout.reason,
    }


def describe_entry(one: Entry, began: float) -> dict[str, Any]:
    """Return an entry of the journal; ``at``: seconds since its rollout began."""
    return _without_empty({**asdict(one), "at": round(one.at - began, 2)})


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the values that are None or False."""
    return {key: value for key, value in row.items() if value is not None and value is not False}


def date(at: float) -> str:
    """Return a time (seconds since the epoch) as ``2026-11-28 02:00:00+00:00``."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(sep=" ", timespec="seconds")
