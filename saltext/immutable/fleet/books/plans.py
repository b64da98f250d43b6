"""Plans that were shown to somebody: kept with the ground that they stand on, and carried out exactly or not at all."""

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

KEPT = 50
"""Plans of a fleet that are kept, the newest ones."""
KEPT_FOR = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Saved:
    """A plan as it was shown."""

    id: str
    fleet: str
    at: float
    image: str | None
    """The image that was asked for; None: the channel's."""
    ground: Mapping[str, Any]
    """What it was made from; see `ground`."""
    actions: Sequence[Mapping[str, Any]]
    who: str | None = None
    used: float | None = None
    """When a roll took it up."""


def ground(
    fleet: Fleet, image: Image, generation: int | None, unfinished: Rollout | None, machines: Sequence[Machine]
) -> dict[str, Any]:
    """Return everything that a plan is made from, as data; ``image`` is the one that would run."""
    return {
        "image": image.name,
        "digest": image.digest,
        "generation": generation,
        "unfinished": f"{unfinished.kind} {unfinished.id}" if unfinished else None,
        "fleet": _data(fleet),
        "machines": {machine.minion_id: _facts(machine) for machine in machines},
    }


def _facts(machine: Machine) -> dict[str, Any]:
    """Return what of a machine a plan depends on; its reasons may change."""
    return {
        "generation": machine.generation,
        "phase": machine.phase,
        "tainted": machine.taint is not None,
        "protected": machine.protect is not None,
        "lost": machine.fault is not None,
        "kept": machine.kept_until is not None,
    }


def _data(value: Any) -> Any:
    """Return a definition as JSON holds it, amounts as people write them."""
    if isinstance(value, Amount):
        return str(value)
    if is_dataclass(value):
        return {field.name: _data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _data(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_data(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def require_same(saved: Saved, now: Mapping[str, Any], actions: Sequence[Action]) -> None:
    """Raise unless the plan would be made again exactly as it is; the error names each thing that has moved."""
    differ = moved(saved.ground, now)
    if not differ and [_deed(one) for one in _rows(actions)] != [_deed(one) for one in saved.actions]:
        differ = [f"now it would be: {_summed(_rows(actions))}; the plan says: {_summed(saved.actions)}"]
    if differ:
        raise CommandExecutionError(
            f"plan {saved.id} of {_date(saved.at)} no longer fits fleet {saved.fleet}, and nothing was done: "
            f"{'; '.join(differ)}; make a new plan: `salt-run fleet.plan {saved.fleet}`"
        )


def _rows(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [asdict(action) for action in actions]


def _deed(action: Mapping[str, Any]) -> tuple[Any, ...]:
    return action["kind"], action["generation"], action["minion_id"]


def _summed(actions: Sequence[Mapping[str, Any]]) -> str:
    said = [f"{action['kind']} {action['minion_id'] or 'a new machine'}" for action in actions]
    return ", ".join(said) or "nothing to do"


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
        """Keep a plan and return its id; old plans of the fleet are let go."""
        # The letter: Salt's command line would take 12345678 and 1e345678 for numbers.
        row = Saved(f"p{self._token()}", self.fleet, now, image, ground, _rows(actions), who)
        newest = sa.select(plans.c.id).where(plans.c.fleet == self.fleet)
        with self._store.write() as tx:
            tx.execute(sa.insert(plans).values(asdict(row)))
            kept = tx.execute(newest.order_by(plans.c.at.desc(), plans.c.id).limit(KEPT)).scalars().all()
            old = sa.or_(plans.c.id.not_in(kept), plans.c.at < now - KEPT_FOR)
            tx.execute(sa.delete(plans).where(plans.c.fleet == self.fleet, old))
        return row.id

    def find(self, plan: str) -> Saved:
        """Return a plan of this fleet that no roll has taken up yet."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(plans).where(plans.c.id == str(plan))).mappings().first()
        if row is None:
            raise SaltInvocationError(f"there is no plan {plan!r} of fleet {self.fleet}; there are: {self._known()}")
        saved = Saved(**row)
        if saved.fleet != self.fleet:
            raise SaltInvocationError(f"plan {saved.id} is one of fleet {saved.fleet}, not of {self.fleet}")
        if saved.used is not None:
            raise self._used(saved.id, saved.used)
        return saved

    def use(self, lease: Lease, saved: Saved, now: float) -> None:
        """Write down that a roll takes the plan up: it is good for this one."""
        where = (plans.c.id == saved.id, plans.c.used.is_(None))
        with lease.write() as tx:
            if not tx.execute(sa.update(plans).where(*where).values(used=now)).rowcount:
                raise self._used(saved.id, now)

    def _used(self, plan: str, at: float) -> SaltInvocationError:
        return SaltInvocationError(
            f"plan {plan} was taken up at {_date(at)}, and a plan is good for one roll: `salt-run fleet.roll "
            f"{self.fleet}` carries on what was interrupted, `salt-run fleet.plan {self.fleet}` makes a new plan"
        )

    def _known(self) -> str:
        query = sa.select(plans.c.id, plans.c.at).where(plans.c.fleet == self.fleet, plans.c.used.is_(None))
        with self._store.read() as connection:
            rows = connection.execute(query.order_by(plans.c.at.desc()).limit(5)).all()
        return ", ".join(f"{row.id} of {_date(row.at)}" for row in rows) or "none"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(sep=" ", timespec="seconds")
