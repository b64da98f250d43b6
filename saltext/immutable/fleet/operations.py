"""What an operator asks of a fleet: roll, roll back, scale, mend, destroy; pause, resume, abort, approve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.fleet.books.plans import Plans, SavedPlan, ground, require_same
from saltext.immutable.fleet.books.revoked import revoked_target
from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.orders import Order, What, applied, refusal
from saltext.immutable.fleet.decide.reconcile import no_further
from saltext.immutable.fleet.decide.state import MENDING, Kind, Outcome, Rollout
from saltext.immutable.fleet.decide.verdicts import revived
from saltext.immutable.fleet.fleets import Failed, Fleets, Forecast, ended_as, last_good, loader, router, signals
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Fleet
from saltext.immutable.spec.strategy import conflicts
from saltext.immutable.store import Held, Lease
from saltext.immutable.text import plain

__all__ = ["Failed", "Forecast", "Operations", "loader", "router", "signals"]

FOLLOW_EVERY = 0.5
"""Seconds between two looks at a rollout that somebody else drives."""
EXPECTED: Mapping[What, Sequence[Outcome]] = {
    "pause": ("paused",),
    "abort": ("aborted",),
    "back": ("rolled back",),
    "approve": ("done",),
}
"""How a rollout ends when an order is applied."""



class Operations(Fleets):
    """Commands on fleets. Each may be given again after an interruption, and carries on."""

    def roll(
        self, name: str, image: str | None = None, *, now: bool = False, plan: str | None = None
    ) -> Rollout | None:
        """Bring a fleet to the image of its channel (or to ``image``); None when it is there already.

        ``now``: also outside the fleet's windows. ``plan``: exactly what this plan says, with its image, or nothing.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            self._require_free(unfinished)
            if plan is not None:
                saved, _ = self.planned(name, plan, image)
                self._require_open(fleet, now)  # else it would be used up for nothing
                Plans(self.store, name).use(lease, saved, self.clock())
                image = saved.image
            carried_on = None
            going = unfinished is not None and (unfinished.outcome is None or unfinished.paused_by == "window")
            revoked = revoked_target(self.store, ledger, unfinished)
            if unfinished and going and unfinished.kind == "roll" and not revoked:
                carried_on = self._drive(fleet, ledger, lease, unfinished, now=now)
            return self._roll(fleet, ledger, lease, image, now) or carried_on

    def _roll(self, fleet: Fleet, ledger: Ledger, lease: Lease, image: str | None, now: bool) -> Rollout | None:
        digest = self._image(fleet, image)
        generation = ledger.pin(lease, digest, fleet.provider, self.clock(), fleet.traffic)
        return self._begin(fleet, ledger, lease, "roll", generation.number, now)

    def rollback(self, name: str, generation: int | None = None, reason: str = "") -> Rollout | None:
        """Bring a fleet back to its last good generation (or to a named one), without baking.

        A roll that is under way or paused turns back itself, whoever drives it.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        unfinished = ledger.unfinished()
        generation = _count(generation, "generation") if generation is not None else None
        if self._is_turned(unfinished, generation):
            return self.steer(name, "back", reason)
        with self.lease(name) as lease:
            target, unfinished = self._way_back(ledger, generation), ledger.unfinished()
            again = unfinished and (unfinished.kind, unfinished.target) == ("rollback", target)
            if unfinished and again and unfinished.outcome is None:
                return self._drive(fleet, ledger, lease, unfinished)
            return self._begin(fleet, ledger, lease, "rollback", target)

    def destroy(self, name: str) -> Rollout | None:
        """Let all machines and keys of a fleet go; its history stays."""
        fleet, ledger = self.find(name, gone=True), Ledger(self.store, name)
        if protected := ledger.protected():
            raise CommandExecutionError(
                f"{', '.join(protected)} must not be taken away; `salt-run fleet.unprotect` lets it go"
            )
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            if unfinished and unfinished.outcome is None and unfinished.kind == "destroy":
                return self._drive(fleet, ledger, lease, unfinished)
            nothing = self._look(fleet, ledger, "destroy", None).nothing and not ledger.lineage()
            if nothing and unfinished is None:
                return None
            return self._drive(fleet, ledger, lease, ledger.begin(lease, "destroy", None, self.clock()))

    def scale(self, name: str, size: int) -> Rollout | None:
        """Set the size of a fleet, in place of the pillar's until that changes; None when it has that size already.

        A rollout that is under way takes it up; one that is paused is returned, and does when it is resumed.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        declared = fleet.size
        _require_size(replace(fleet, size=_count(size)))
        last_good(ledger)
        unfinished = ledger.unfinished()
        if unfinished and unfinished.kind == "destroy":
            raise CommandExecutionError(
                f"rollout {unfinished.id} destroys the fleet; `salt-run fleet.abort {name}` stops it"
            )
        ledger.resize(size, declared, self.user, self.clock())
        if unfinished and unfinished.outcome is None:
            return self.follow(name, unfinished)
        return unfinished or self.mend(name, "scale")

    def fleet_of(self, minion_id: str) -> str:
        """Return the fleet of a machine."""
        name = self.taints.fleet_of(minion_id)
        if name is None:
            raise SaltInvocationError(f"{minion_id} is no machine of a fleet; `salt-run fleet.status all` names them")
        return name

    def replace(self, minion_id: str, reason: str) -> Rollout | None:
        """Let a newcomer take the place of one machine."""
        name = self.fleet_of(minion_id)
        self.definition(name)
        unfinished = Ledger(self.store, name).unfinished()
        self._require_free(unfinished)
        if why := Ledger(self.store, name).protected().get(minion_id):
            raise CommandExecutionError(
                f"{minion_id} is protected: {why}; `salt-run fleet.unprotect {minion_id}` lets it go"
            )
        self.taints.add("hand", self.audit_entry("tainted", minion_id, name, plain(str(reason))))
        if unfinished and unfinished.outcome is None:
            return self.follow(name, unfinished)
        return self.mend(name, "replace")

    def mend(self, name: str, kind: Kind = "reconcile") -> Rollout | None:
        """Replace what is lost, ill or tainted, and fill up with the last good generation; None: all is well."""
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            last_good(ledger)
            unfinished = ledger.unfinished()
            self._require_free(unfinished)
            if unfinished and unfinished.outcome is None:
                self._drive(fleet, ledger, lease, unfinished)
            return self._begin(fleet, ledger, lease, kind, last_good(ledger))

    def resume(self, name: str, now: bool = False) -> Rollout | None:
        """Go on with a rollout that was paused or interrupted; there has to be one."""
        require_order(self.ledger(name).unfinished(), name, None)
        return self.carry_on(name, now)

    def carry_on(self, name: str, now: bool = False) -> Rollout | None:
        """Go on with a rollout that was interrupted or paused; None: there is none."""
        ledger = Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            if unfinished is None:
                return None
            gone = unfinished.kind == "destroy"
            fleet = self.find(name, gone=True) if gone else self.definition(name)
            if revoked := revoked_target(self.store, ledger, unfinished):
                raise CommandExecutionError(f"fleet {name}: {no_further(fleet, unfinished, revoked)}")
            return self._drive(fleet, ledger, lease, unfinished, now=now)

    def steer(self, name: str, what: What, reason: object = "") -> Rollout:
        """Give an order to the rollout of a fleet, and see it through, whoever drives it.

        An approval is taken up by who drives the rollout; where somebody does, nobody waits for its end.
        """
        ledger = self.ledger(name)
        rollout = require_order(ledger.unfinished(), name, what)
        if what == "approve":
            self._require_seen(self.find(name, gone=True), rollout)
        ledger.order(rollout, what, plain(str(reason or "")), self.user, self.clock())
        return self.follow(name, rollout, EXPECTED[what], wait=what != "approve")

    def follow(
        self, name: str, rollout: Rollout, expected: Sequence[Outcome] = ("done",), *, wait: bool = True
    ) -> Rollout:
        """Wait for the end of a rollout, and drive it where nobody else does."""
        ledger = self.ledger(name)
        while True:
            with suppress(Held), self.lease(name) as lease:
                now = ledger.rollout(rollout.id)
                if now.outcome == "done" and "done" not in expected:
                    raise Failed(
                        f"fleet {name}: rollout {now.id}, a {now.kind}, was over before the order was taken up: it is "
                        f"done, and nothing else was changed; `salt-run fleet.status {name}` tells what runs"
                    )
                turns = any(one.rollout == now.id and one.what in ("abort", "back") for one in ledger.orders())
                # What was paused is not resumed by who only waited for its end.
                if now.outcome in expected or now.outcome and not (now.outcome == "paused" and turns):
                    return ended_as(now, expected, ledger)
                fleet = self.find(name, gone=True) if rollout.kind == "destroy" else self.definition(name)
                return self._drive(fleet, ledger, lease, now, expected)
            if not wait:
                return ledger.rollout(rollout.id)
            self._nap(FOLLOW_EVERY)

    @staticmethod
    def _is_turned(unfinished: Rollout | None, generation: int | None) -> bool:
        """Tell whether to roll back is to turn a roll back that is not over."""
        if unfinished is None or unfinished.kind != "roll" or unfinished.source is None:
            return False
        return unfinished.source != unfinished.target and generation in (None, unfinished.source)

    @staticmethod
    def _require_seen(fleet: Fleet, rollout: Rollout) -> None:
        """Refuse to approve what nobody can have looked at yet."""
        if rollout.step_reached_at is None and not fleet.strategy.blue_green:
            raise CommandExecutionError(
                f"rollout {rollout.id} of fleet {rollout.fleet} has not reached step {rollout.step + 1} yet, so there "
                f"is nothing to approve; `salt-run fleet.status {rollout.fleet}` tells what it waits for"
            )

    def _require_free(self, unfinished: Rollout | None) -> None:
        """Refuse to go on where an operator said pause."""
        if unfinished and unfinished.paused_by == "operator":
            name = unfinished.fleet
            raise CommandExecutionError(
                f"fleet {name}: rollout {unfinished.id} is paused: {unfinished.reason}, "
                f"`salt-run fleet.abort {name}` ends it here"
            )

    def foresee_order(self, name: str, what: What | None) -> Forecast:
        """Return what would be done if an order were given now; None: to go on."""
        ledger, now = self.ledger(name), self.clock()
        rollout = require_order(ledger.unfinished(), name, what)
        fleet = ledger.with_effective_size(self.find(name, gone=True))
        orders = [Order(0, rollout.id, what, now, "", self.user)] if what else []
        machines = self.machines(fleet, ledger, now)
        steered = applied(revived(rollout, now), orders, now)
        actions, stuck = ([], None) if steered.outcome else forecast(fleet, steered, machines, now)
        image = self.image_name(ledger.generations().get(steered.target or 0))
        return Forecast(name, rollout.kind, rollout.source, image, tuple(actions), continues=True, stuck=stuck)

    def foresee(
        self,
        name: str,
        kind: Kind,
        *,
        generation: int | None = None,
        image: str | None = None,
        size: int | None = None,
    ) -> Forecast:
        """Return what a command would do now, if all went well. Nothing is done."""
        ledger = Ledger(self.store, name)
        if kind == "destroy":
            return self._look(self.find(name, gone=True), ledger, kind, None)
        fleet = self.definition(name)
        generation = _count(generation, "generation") if generation is not None else None
        if kind == "rollback":
            if self._is_turned(ledger.unfinished(), generation):
                return self.foresee_order(name, "back")
            return self._look(fleet, ledger, kind, self._way_back(ledger, generation))
        if kind in MENDING:
            if kind != "scale":
                sized = ledger.with_effective_size(fleet)
            else:
                sized = replace(fleet, size=_count(size))
                _require_size(sized)
            return self._look(sized, ledger, kind, last_good(ledger), sized=True)
        digest, known = self._image(fleet, image), ledger.generations()
        newest = known[max(known)] if known else None
        if newest and (newest.image, newest.provider) == (digest, fleet.provider):
            return self._look(fleet, ledger, kind, newest.number)
        return self._look(fleet, ledger, kind, len(known) + 1, digest)

    def planned(self, name: str, plan: str, image: str | None = None) -> tuple[SavedPlan, Forecast]:
        """Return a plan that was kept, and what a roll would do now; they are the same, or this raises."""
        saved = Plans(self.store, name).find(plan)
        if image is not None:
            raise SaltInvocationError(f"image: plan {saved.id} says which image is meant; leave image out")
        foreseen = self.foresee(name, "roll", image=saved.image)
        require_same(saved, self.ground(foreseen), foreseen.actions)
        return saved, foreseen

    def ground(self, foreseen: Forecast) -> dict[str, Any]:
        """Return all that a forecast of a roll stands on; see `plans.ground`."""
        ledger = Ledger(self.store, foreseen.fleet)
        fleet = ledger.with_effective_size(self.definition(foreseen.fleet))
        image = self.store.image(str(foreseen.digest))
        return ground(fleet, image, foreseen.current, ledger.unfinished(), foreseen.machines)


def _count(number: object, name: str = "size") -> int:
    try:
        return reading.count(number)
    except ValueError as err:
        raise SaltInvocationError(f"{name}: {err}") from err


def _require_size(fleet: Fleet) -> None:
    if fleet.size == 0 and not fleet.allow_outage:
        raise SaltInvocationError(
            f"size: with 0 machines nothing would serve; `salt-run fleet.destroy {fleet.name}` lets the fleet go, "
            f"or write allow_outage: true in immutable:fleets:{fleet.name}"
        )
    for sentence in conflicts(fleet):
        raise SaltInvocationError(f"size: with {fleet.size} machines {sentence}")


def require_order(rollout: Rollout | None, fleet: str, what: What | None) -> Rollout:
    """Return the rollout that an order is about, or say why there is none."""
    if rollout is None:
        raise CommandExecutionError(
            f"fleet {fleet} has no rollout that is under way or paused; `salt-run fleet.status {fleet}` tells"
        )
    if why := refusal(rollout, what):
        raise CommandExecutionError(why)
    return rollout
