"""Saved plans: each is kept with the state that it was made from (its ground), and is carried out exactly or never."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.decide.difference import moved
from saltext.immutable.fleet.decide.state import Action, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet
from saltext.immutable.store import Image, Lease, Store
from saltext.immutable.store.schema import plans

MAX_PLANS = 50
"""How many plans of a fleet are kept."""
MAX_AGE = 30 * 24 * 3600.0
"""Seconds for which a plan is kept."""


@dataclass(frozen=True)
class SavedPlan:
    """A plan as ``fleet.plan`` showed it."""

    id: str
    fleet: str
    at: float
    image: str | None
    """The image that was asked for; None: the image of the channel."""
    ground: Mapping[str, Any]
    """The state that the plan was made from; see `ground`."""
    actions: Sequence[Mapping[str, Any]]
    who: str | None = None
    used: float | None = None
    """When a roll used it."""


def ground(
    fleet: Fleet, image: Image, generation: int | None, unfinished: Rollout | None, machines: Sequence[Machine]
) -> dict[str, Any]:
    """Return everything that a plan depends on, as data for JSON; ``image``: the one that would run."""
    return {
        "image": image.name,
        "digest": image.digest,
        "generation": generation,
        "unfinished": f"{unfinished.kind} {unfinished.id}" if unfinished else None,
        "fleet": _data(fleet),
        "machines": {machine.minion_id: _facts(machine) for machine in machines},
    }


def _facts(machine: Machine) -> dict[str, Any]:
    """Return the facts about a machine that a plan depends on. (The reasons behind them may change.)"""
    return {
        "generation": machine.generation,
        "phase": machine.phase,
        "tainted": machine.taint is not None,
        "protected": machine.protect is not None,
        "lost": machine.fault is not None,
        "kept": machine.kept_until is not None,
    }


def _data(value: Any) -> Any:
    """Return a definition as data for JSON; amounts as in the pillar (``25%``)."""
    if isinstance(value, Amount):
        return str(value)
    if is_dataclass(value):
        return {field.name: _data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _data(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_data(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def require_same(saved: SavedPlan, now: Mapping[str, Any], actions: Sequence[Action]) -> None:
    """Raise ``CommandExecutionError`` that names each difference unless the same plan would be made now.

    ``now``, ``actions``: ground and actions of a plan that is made now.
    """
    differences = moved(saved.ground, now)
    if not differences and [_key(one) for one in _rows(actions)] != [_key(one) for one in saved.actions]:
        differences = [f"now it would be: {_summary(_rows(actions))}; the plan says: {_summary(saved.actions)}"]
    if differences:
        raise CommandExecutionError(
            f"plan {saved.id} of {_date(saved.at)} no longer fits fleet {saved.fleet}, and nothing was done: "
            f"{'; '.join(differences)}; make a new plan: `salt-run fleet.plan {saved.fleet}`"
        )


def _rows(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [asdict(action) for action in actions]


def _key(action: Mapping[str, Any]) -> tuple[Any, ...]:
    return action["kind"], action["generation"], action["minion_id"]


def _summary(actions: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['kind']} {one['minion_id'] or 'a new machine'}" for one in actions) or "nothing to do"


class Plans:
    """The plans of one fleet."""

    def __init__(self, store: Store, fleet: str, token: Callable[[], str] = lambda: secrets.token_hex(4)) -> None:
        self.fleet = fleet
        self._store, self._token = store, token

    def save(
        self,
        ground: Mapping[str, Any],
        actions: Sequence[Action],
        now: float,
        *,
        image: str | None = None,
        who: str | None = None,
    ) -> str:
        """Save a plan and return its id; delete old plans of the fleet."""
        # The letter p: Salt's command line would read 12345678 and 1e345678 as numbers.
        row = SavedPlan(f"p{self._token()}", self.fleet, now, image, ground, _rows(actions), who)
        newest = sa.select(plans.c.id).where(plans.c.fleet == self.fleet)
        with self._store.write() as tx:
            tx.execute(sa.insert(plans).values(asdict(row)))
            kept = tx.execute(newest.order_by(plans.c.at.desc(), plans.c.id).limit(MAX_PLANS)).scalars().all()
            old = sa.or_(plans.c.id.not_in(kept), plans.c.at < now - MAX_AGE)
            tx.execute(sa.delete(plans).where(plans.c.fleet == self.fleet, old))
        return row.id

    def find(self, plan: str) -> SavedPlan:
        """Return a plan of this fleet that no roll has used; raise ``SaltInvocationError`` for any other."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(plans).where(plans.c.id == str(plan))).mappings().first()
        if row is None:
            raise SaltInvocationError(f"there is no plan {plan!r} of fleet {self.fleet}; there are: {self._known()}")
        saved = SavedPlan(**row)
        if saved.fleet != self.fleet:
            raise SaltInvocationError(
                f"plan {saved.id} is for fleet {saved.fleet}, not for {self.fleet}; give the plan to that fleet's roll"
            )
        if saved.used is not None:
            raise self._used(saved.id, saved.used)
        return saved

    def use(self, lease: Lease, saved: SavedPlan, now: float) -> None:
        """Record that a roll uses the plan; raise ``SaltInvocationError`` if another one has used it."""
        where = (plans.c.id == saved.id, plans.c.used.is_(None))
        with lease.write() as tx:
            if not tx.execute(sa.update(plans).where(*where).values(used=now)).rowcount:
                raise self._used(saved.id, now)

    def _used(self, plan: str, at: float) -> SaltInvocationError:
        return SaltInvocationError(
            f"plan {plan} was used at {_date(at)}, and a plan is good for one roll: `salt-run fleet.roll "
            f"{self.fleet}` continues an interrupted roll, `salt-run fleet.plan {self.fleet}` makes a new plan"
        )

    def _known(self) -> str:
        query = sa.select(plans.c.id, plans.c.at).where(plans.c.fleet == self.fleet, plans.c.used.is_(None))
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(plans.c.at.desc()).limit(5)).all()
        return ", ".join(f"{row.id} of {_date(row.at)}" for row in rows) or "none"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(sep=" ", timespec="seconds")
