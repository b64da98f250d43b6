"""The result of `fleet.show`: one rollout with its generations, orders and journal, finished or not."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet.books.ledger import Generation, Ledger
from saltext.immutable.fleet.decide.difference import leaves_moved
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.show.report import date, describe_entry, describe_rollout, list_orders
from saltext.immutable.store.schema import rollouts

_MAX_DIGITS = 18
"""Longer numbers do not fit into the column."""


def show(operations: Operations, number: object, fleet: str | None = None) -> dict[str, Any]:
    """Return a rollout with both generations, changed launch settings, orders, failures and timeline.

    Raises ``SaltInvocationError`` if there is no rollout of this ``number`` (in ``fleet``).
    """
    rollout = _find(operations, number, fleet)
    ledger = operations.ledger(rollout.fleet)
    known = ledger.generations()
    timeline = [describe_entry(one, rollout.started) for one in ledger.entries(rollout.id)]
    numbers = {"from": rollout.source, "to": rollout.target}
    ends = {end: known.get(number) if number is not None else None for end, number in numbers.items()}
    return {
        "fleet": rollout.fleet,
        **describe_rollout(rollout),
        **{end: _generation(operations, generation) for end, generation in ends.items()},
        "settings_changed": list(leaves_moved(*(_settings(generation) for generation in ends.values()))),
        "old_size": rollout.old_size,
        "direction": rollout.direction,
        "failures": {line["minion_id"]: line["reason"] for line in timeline if line["what"] == "failed"},
        "orders": [order for order in list_orders(operations, rollout.fleet) if order["rollout"] == rollout.id],
        "timeline": timeline,
    }


def fleet_of(operations: Operations, number: object) -> str | None:
    """Return the fleet of the rollout of this number; numbers are unique across fleets. None: there is no such one."""
    with operations.store.read() as connection:
        fleet: str | None = connection.execute(sa.select(rollouts.c.fleet).where(rollouts.c.id == _id(number))).scalar()
    return fleet


def _id(number: object) -> int:
    digits = str(number)
    return int(digits) if digits.isdecimal() and len(digits) < _MAX_DIGITS else 0  # the first one has number 1


def _find(operations: Operations, number: object, fleet: str | None) -> Rollout:
    found = fleet_of(operations, number)
    if found is None or fleet not in (None, found):
        other = f"; it is a rollout of fleet {found}" if found else ""
        raise SaltInvocationError(
            f"fleet {fleet or 'all'}: there is no rollout {number}{other}; "
            f"`salt-run fleet.history {fleet or 'all'}` shows the numbers"
        )
    return next(rollout for rollout in Ledger(operations.store, found).rollouts() if rollout.id == _id(number))


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
