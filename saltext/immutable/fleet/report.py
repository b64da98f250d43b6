"""What the fleet's commands and questions say, as data for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from saltext.immutable.fleet.ledger import Entry, Ledger, Record
from saltext.immutable.fleet.operations import Forecast, Operations
from saltext.immutable.fleet.plan import Rollout
from saltext.immutable.fleet.taints import Deed, Taint
from saltext.immutable.providers import Instance


def warnings(opts: Mapping[str, Any]) -> list[str]:
    """Return what of the master's config weakens the enrolment of machines."""
    return [
        f"the master has {option}: True, so that any minion may enrol under any id; set it to False"
        for option in ("auto_accept", "open_mode")
        if opts.get(option)
    ]


def foretold(forecast: Forecast) -> dict[str, Any]:
    """Return what a command would do: every launch and every victim, in order, with its reason."""
    victims = [action.minion_id for action in forecast.actions if action.minion_id]
    launches = sum(action.kind == "launch" for action in forecast.actions)
    if forecast.nothing:
        verdict, reason = "done", "every machine is as it should be"
    else:
        verdict = "continue" if forecast.continues else forecast.kind
        reason = f"{launches} to launch, {len(victims)} to destroy"
    return {
        "fleet": forecast.fleet,
        "verdict": verdict,
        "reason": reason,
        "generation": forecast.current,
        "image": forecast.image,
        "changes": {"launch": launches, "destroy": victims} if forecast.actions else {},
        "actions": [_telling(asdict(action)) for action in forecast.actions],
    }


def ended(operations: Operations, name: str, rollout: Rollout | None) -> dict[str, Any]:
    """Return how a command ended, with its timeline."""
    ledger = operations.ledger(name)
    lineage = ledger.lineage()
    generation = ledger.generation(lineage[-1]) if lineage else None
    told: dict[str, Any] = {
        "fleet": name,
        "outcome": "done",
        "generation": generation.number if generation else None,
        "image": operations.image_name(generation),
        "size": ledger.size(),
    }
    if rollout is None:
        return {**told, "reason": "every machine is as it should be", "seconds": 0.0, "timeline": []}
    entries = ledger.entries(rollout.id)
    seconds = round((rollout.ended or rollout.started) - rollout.started, 2)
    return {
        **told,
        "reason": rollout.reason or rollout.verdict,
        "seconds": seconds,
        "timeline": [_line(entry, rollout.started) for entry in entries],
    }


def status(operations: Operations, name: str, now: float) -> dict[str, Any]:
    """Return what a fleet is made of now and what its last rollout came to."""
    ledger = operations.ledger(name)
    instances = operations.instances(name)
    lineage, rollouts = ledger.lineage(), ledger.rollouts()
    generation = ledger.generation(lineage[-1]) if lineage else None
    holder = operations.holder(name)
    records = ledger.records().values()
    taints = operations.taints.of(name)
    machines = [_machine(operations, ledger, r, instances.get(r.minion_id), now) for r in records]
    return {
        "fleet": name,
        "generation": generation.number if generation else None,
        "image": operations.image_name(generation),
        "size": sum(not record.doomed for record in records),
        "tainted": sum(record.minion_id in taints for record in records),
        "machines": [{**one, "tainted": _reasons(taints.get(one["minion_id"], []))} for one in machines],
        "rollout": _rollout(rollouts[0]) if rollouts else None,
        "held_by": str(holder) if holder else None,
    }


def history(operations: Operations, name: str) -> dict[str, Any]:
    """Return a fleet's generations and rollouts, the newest first."""
    ledger = operations.ledger(name)
    return {
        "fleet": name,
        "generations": [
            {
                "generation": one.number,
                "image": operations.image_name(one),
                "provider": one.provider.name,
                "created": _date(one.created),
            }
            for one in reversed(ledger.generations().values())
        ],
        "rollouts": [_rollout(one) for one in ledger.rollouts()],
        "deeds": [_deed(one) for one in operations.taints.deeds(name)],
    }


def status_of_all(operations: Operations, now: float) -> dict[str, Any]:
    """Return the status of every fleet, and which machines that no fleet launched are tainted."""
    adopted = {minion_id: _reasons(taints) for minion_id, taints in operations.taints.of(None).items()}
    return {"fleets": {name: status(operations, name, now) for name in operations.names()}, "adopted": adopted}


def history_of_all(operations: Operations) -> dict[str, Any]:
    """Return the history of every fleet, and what was done to machines that no fleet launched."""
    fleets = {name: history(operations, name) for name in operations.names()}
    return {"fleets": fleets, "adopted": [_deed(one) for one in operations.taints.deeds(None)]}


def _deed(deed: Deed) -> dict[str, Any]:
    return {"at": _date(deed.at), **{key: value for key, value in asdict(deed).items() if key not in ("at", "fleet")}}


def _reasons(taints: Sequence[Taint]) -> list[str]:
    return [taint.reason for taint in taints]


def _machine(
    operations: Operations, ledger: Ledger, record: Record, instance: Instance | None, now: float
) -> dict[str, Any]:
    phase = "serving" if record.ready_since is not None else "booting"
    if record.doomed or instance is None or not instance.running:
        phase = "doomed" if record.doomed else "stopped" if instance else "absent"
    known = ledger.generations().get(record.generation)
    return {
        "minion_id": record.minion_id,
        "generation": record.generation,
        "image": operations.image_name(known),
        "phase": phase,
        "address": instance.address if instance else None,
        "age": round(now - record.born),
    }


def _rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "from": rollout.source,
        "to": rollout.target,
        "started": _date(rollout.started),
        "seconds": round(rollout.ended - rollout.started, 1) if rollout.ended else None,
        "outcome": rollout.outcome or "unfinished",
        "verdict": rollout.verdict,
        "reason": rollout.reason,
    }


def _line(entry: Entry, began: float) -> dict[str, Any]:
    return _telling({**asdict(entry), "at": round(entry.at - began, 2)})


def _telling(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: what is unknown, and what is not so."""
    return {key: value for key, value in row.items() if value is not None and value is not False}


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(sep=" ", timespec="seconds")
