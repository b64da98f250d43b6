"""One rollout, told afterwards or while it runs: where it went, what was ordered, and its journal."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet.books.ledger import Generation, Ledger
from saltext.immutable.fleet.decide.difference import leaves_moved
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.show.report import date, entry, ordered, rolled
from saltext.immutable.store.schema import rollouts

_DIGITS = 18
"""Longer numbers are none that a database keeps."""


def show(operations: Operations, number: object, fleet: str | None = None) -> dict[str, Any]:
    """Return a rollout with both generations, what differs in their launch settings, orders, failures and timeline."""
    rollout = _find(operations, number, fleet)
    ledger = operations.ledger(rollout.fleet)
    known = ledger.generations()
    timeline = [entry(one, rollout.started) for one in ledger.entries(rollout.id)]
    ways = {way: known.get(at) if at is not None else None for way, at in _ways(rollout).items()}
    return {
        "fleet": rollout.fleet,
        **rolled(rollout),
        **{way: _generation(operations, generation) for way, generation in ways.items()},
        "settings_changed": list(leaves_moved(*(_settings(generation) for generation in ways.values()))),
        "old_size": rollout.old_size,
        "direction": rollout.direction,
        "failures": {line["minion_id"]: line["reason"] for line in timeline if line["what"] == "failed"},
        "orders": [order for order in ordered(operations, rollout.fleet) if order["rollout"] == rollout.id],
        "timeline": timeline,
    }


def _ways(rollout: Rollout) -> dict[str, int | None]:
    return {"from": rollout.source, "to": rollout.target}


def _find(operations: Operations, number: object, fleet: str | None) -> Rollout:
    """Return the rollout of this number, which is of one fleet only."""
    digits = str(number)
    known = int(digits) if digits.isdecimal() and len(digits) < _DIGITS else 0  # they begin with 1
    with operations.store.read() as connection:
        found = connection.execute(sa.select(rollouts.c.fleet).where(rollouts.c.id == known)).scalar()
    if found is None or fleet not in (None, found):
        of = f"; it is one of fleet {found}" if found else ""
        raise SaltInvocationError(
            f"fleet {fleet or 'all'}: there is no rollout {digits}{of}; "
            f"`salt-run fleet.history {fleet or 'all'}` shows the numbers"
        )
    return next(rollout for rollout in Ledger(operations.store, found).rollouts() if rollout.id == known)


def _generation(operations: Operations, generation: Generation | None) -> dict[str, Any] | None:
    if generation is None:
        return None
    return {
        "generation": generation.number,
        "image": operations.image_name(generation),
        "provider": generation.provider.name,
        "settings": dict(generation.provider.settings),
        "created": date(generation.created),
    }


def _settings(generation: Generation | None) -> dict[str, Any]:
    return dict(generation.provider.settings) if generation else {}
