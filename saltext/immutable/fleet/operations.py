"""The commands on a whole fleet: roll, roll back, scale, repair, destroy; pause, resume, abort, approve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.access import loader, router
from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.fleet.books.revoked import revoked_target
from saltext.immutable.fleet.books.saved_plans import Plans, SavedPlan, ground, require_same
from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.orders import Order, What, applied, refusal
from saltext.immutable.fleet.decide.reconcile import no_further
from saltext.immutable.fleet.decide.state import MENDING, Kind, Outcome, Rollout
from saltext.immutable.fleet.decide.verdicts import revived
from saltext.immutable.fleet.fleets import Failed, Fleets, last_good, require_outcome
from saltext.immutable.fleet.preview import Forecast
from saltext.immutable.fleet.unknown_machines import Recovery
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Fleet
from saltext.immutable.spec.strategy import conflicts
from saltext.immutable.store import Held, Lease
from saltext.immutable.text import plain

__all__ = ["Failed", "Forecast", "Operations", "loader", "router"]

POLL_INTERVAL = 0.5
"""Seconds between two reads of a rollout that another process drives."""
EXPECTED: Mapping[What, Sequence[Outcome]] = {
    "pause": ("paused",),
    "abort": ("aborted",),
    "back": ("rolled back",),
    "approve": ("done",),
}
"""The outcome of a rollout to which an order is applied."""


class Operations(Fleets):
    """Commands on fleets. A command that was interrupted may be given again: it continues."""

    def roll(
        self, name: str, image: str | None = None, *, now: bool = False, plan: str | None = None
    ) -> Rollout | None:
        """Bring a fleet to the image of its channel (or to ``image``); return None if it runs that already.

        ``now``: also outside the fleet's windows. ``plan``: do exactly what this saved plan says, or nothing.
        Raises ``Failed`` if the rollout ends otherwise than done, ``Held`` if another process works on the fleet.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            self._require_not_paused(unfinished)
            if plan is not None:
                saved, _ = self.check_plan(name, plan, image)
                self._require_open(fleet, now)  # before the plan is used, which is possible only once
                Plans(self.store, name).use(lease, saved, self.clock())
                image = saved.image
            continued = None
            going = unfinished is not None and (unfinished.outcome is None or unfinished.paused_by == "window")
            revoked = revoked_target(self.store, ledger, unfinished)
            if unfinished and going and unfinished.kind == "roll" and not revoked:
                continued = self._drive(fleet, ledger, lease, unfinished, now=now)
            return self._roll(fleet, ledger, lease, image, now) or continued

    def _roll(self, fleet: Fleet, ledger: Ledger, lease: Lease, image: str | None, now: bool) -> Rollout | None:
        digest = self._image(fleet, image)
        generation = ledger.pin(lease, digest, fleet.provider, self.clock(), fleet.traffic)
        return self._begin(fleet, ledger, lease, "roll", generation.number, now)

    def rollback(self, name: str, generation: int | None = None, reason: str = "") -> Rollout | None:
        """Bring a fleet back to its last good generation (or to ``generation``), without baking.

        A running or paused roll turns back, whichever process drives it.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        unfinished = ledger.unfinished()
        generation = _whole(generation, "generation") if generation is not None else None
        if self._turns_back(unfinished, generation):
            return self.give_order(name, "back", reason)
        with self.lease(name) as lease:
            target, unfinished = self._rollback_target(ledger, generation), ledger.unfinished()
            again = unfinished and (unfinished.kind, unfinished.target) == ("rollback", target)
            if unfinished and again and unfinished.outcome is None:
                return self._drive(fleet, ledger, lease, unfinished)
            return self._begin(fleet, ledger, lease, "rollback", target)

    def destroy(self, name: str) -> Rollout | None:
        """Destroy all machines of a fleet and delete their keys; its history stays."""
        fleet, ledger = self.find(name, allow_removed=True), Ledger(self.store, name)
        if protected := ledger.protected():
            raise CommandExecutionError(
                f"fleet {name} has protected machines: {', '.join(protected)}; `salt-run fleet.unprotect` lets them go"
            )
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            if unfinished and unfinished.outcome is None and unfinished.kind == "destroy":
                return self._drive(fleet, ledger, lease, unfinished)
            nothing = self._forecast(fleet, ledger, "destroy", None).nothing and not ledger.lineage()
            if nothing and unfinished is None:
                return None
            return self._drive(fleet, ledger, lease, ledger.begin(lease, "destroy", None, self.clock()))

    def scale(self, name: str, size: int) -> Rollout | None:
        """Set the size of a fleet, in place of the pillar's until that changes; return None if it has that size.

        A running rollout applies it; a paused one is returned, and applies it when it is resumed.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        declared = fleet.size
        _require_size(replace(fleet, size=_whole(size, "size")))
        unfinished = ledger.unfinished()
        try:
            self.write_back(name)
        except CommandExecutionError:
            if unfinished is None:  # else a driver, or the next one, reads the size
                raise
        last_good(ledger)
        unfinished = ledger.unfinished()
        if unfinished and unfinished.kind == "destroy":
            raise CommandExecutionError(
                f"rollout {unfinished.id} destroys the fleet; `salt-run fleet.abort {name}` stops it"
            )
        ledger.resize(size, declared, self.user, self.clock())
        if unfinished and unfinished.outcome is None:
            return self.wait_for_end(name, unfinished)
        return unfinished or self.repair(name, "scale")

    def fleet_of(self, minion_id: str) -> str:
        """Return the fleet of a machine; raise ``SaltInvocationError`` if it has none."""
        name = self.taints.fleet_of(minion_id) or self.fleet_that_lists(minion_id)
        if name is None:
            raise SaltInvocationError(
                f"{minion_id} is not a machine of a fleet; `salt-run fleet.status all` names the machines"
            )
        self.require_store(name)
        return name

    def fleet_that_lists(self, minion_id: str) -> str | None:
        """Return the fleet of a machine that runs and that the store does not know; None if there is none."""
        return next((name for name in self.definitions.fleets if minion_id in self.strangers(name)), None)

    def strangers(self, name: str) -> list[str]:
        """Return the minion ids of machines of a fleet of the pillar that run and that the store does not know."""
        fleet = self.definitions.fleets.get(name)
        return self.access.strangers(fleet, Ledger(self.store, name)) if fleet else []

    def require_store(self, name: str) -> None:
        """Raise ``CommandExecutionError`` if the store of a fleet was lost."""
        if why := self.lost(name):
            raise CommandExecutionError(why)

    def write_back(self, name: str, test: bool = False) -> Recovery:
        """Write the machines of a fleet back that run but are not in the store; return what was, or would be, written.

        Raises ``CommandExecutionError`` if a provider cannot list its machines, ``Held`` if another process works on
        the fleet.
        """
        self.require_store(name)
        found = self.access.recovery(self.find(name, allow_removed=True), Ledger(self.store, name))
        if not found.records or test:
            return found
        self.recovered.pop(name, None)
        with self.lease(name):  # that looks again, and writes them
            return self.recovered.get(name, Recovery())

    def replace(self, minion_id: str, reason: str) -> Rollout | None:
        """Replace one machine by a new one of the current generation."""
        name = self.fleet_of(minion_id)
        self.definition(name)
        if self.taints.fleet_of(minion_id) is None:
            self.write_back(name)
        unfinished = Ledger(self.store, name).unfinished()
        self._require_not_paused(unfinished)
        if why := Ledger(self.store, name).protected().get(minion_id):
            raise CommandExecutionError(
                f"{minion_id} is protected: {why}; `salt-run fleet.unprotect {minion_id}` removes the protection"
            )
        self.taints.add("hand", self.audit_entry("tainted", minion_id, name, plain(str(reason))))
        if unfinished and unfinished.outcome is None:
            return self.wait_for_end(name, unfinished)
        return self.repair(name, "replace")

    def repair(self, name: str, kind: Kind = "reconcile") -> Rollout | None:
        """Replace lost, sick and tainted machines by new ones of the last good generation, up to the size.

        Returns None if there is nothing to do. An interrupted rollout is continued first.
        """
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        with self.lease(name) as lease:
            last_good(ledger)
            unfinished = ledger.unfinished()
            self._require_not_paused(unfinished)
            if unfinished and unfinished.outcome is None:
                self._drive(fleet, ledger, lease, unfinished)
            return self._begin(fleet, ledger, lease, kind, last_good(ledger))

    def resume(self, name: str, now: bool = False) -> Rollout | None:
        """Continue a paused or interrupted rollout; raise ``CommandExecutionError`` if there is none."""
        require_order(self.ledger(name).unfinished(), name, None)
        ended = self.continue_rollout(name, now)
        return ended or require_order(None, name, None)  # it ended meanwhile

    def continue_rollout(self, name: str, now: bool = False) -> Rollout | None:
        """Continue a paused or interrupted rollout; return None if there is none."""
        ledger = Ledger(self.store, name)
        with self.lease(name) as lease:
            unfinished = ledger.unfinished()
            if unfinished is None:
                return None
            destroys = unfinished.kind == "destroy"
            fleet = self.find(name, allow_removed=True) if destroys else self.definition(name)
            if revoked := revoked_target(self.store, ledger, unfinished):
                raise CommandExecutionError(f"fleet {name}: {no_further(fleet, unfinished, revoked)}")
            return self._drive(fleet, ledger, lease, unfinished, now=now)

    def give_order(self, name: str, what: What, reason: object = "") -> Rollout:
        """Give an order to the rollout of a fleet, whichever process drives it, and return the ended rollout.

        After an approval, do not wait for the end if another process drives the rollout.
        """
        ledger = self.ledger(name)
        rollout = require_order(ledger.unfinished(), name, what)
        if what == "approve":
            self._require_step_reached(self.find(name, allow_removed=True), rollout)
        ledger.order(rollout, what, plain(str(reason or "")), self.user, self.clock())
        return self.wait_for_end(name, rollout, EXPECTED[what], wait=what != "approve")

    def wait_for_end(
        self, name: str, rollout: Rollout, expected: Sequence[Outcome] = ("done",), *, wait: bool = True
    ) -> Rollout:
        """Wait for the end of a rollout that another process drives; drive it if no process does.

        ``wait=False``: return at once if another process drives it. Raises ``Failed`` for another outcome than
        ``expected``.
        """
        ledger = self.ledger(name)
        while True:
            with suppress(Held), self.lease(name, must_list=False) as lease:
                now = ledger.rollout(rollout.id)
                if now.outcome == "done" and "done" not in expected:
                    raise Failed(
                        f"fleet {name}: rollout {now.id}, a {now.kind}, ended before the order was applied: it is "
                        f"done, and nothing else was changed; `salt-run fleet.status {name}` shows what runs"
                    )
                turns = any(one.rollout == now.id and one.what in ("abort", "back") for one in ledger.orders())
                # A command that only waits for the end does not resume a rollout that was paused meanwhile.
                if now.outcome in expected or now.outcome and not (now.outcome == "paused" and turns):
                    return require_outcome(now, expected, ledger)
                destroys = rollout.kind == "destroy"
                fleet = self.find(name, allow_removed=True) if destroys else self.definition(name)
                return self._drive(fleet, ledger, lease, now, expected)
            if not wait:
                return ledger.rollout(rollout.id)
            self._sleep(POLL_INTERVAL)

    @staticmethod
    def _turns_back(unfinished: Rollout | None, generation: int | None) -> bool:
        """Tell whether a rollback means that an unfinished roll turns back."""
        if unfinished is None or unfinished.kind != "roll" or unfinished.source is None:
            return False
        return unfinished.source != unfinished.target and generation in (None, unfinished.source)

    @staticmethod
    def _require_step_reached(fleet: Fleet, rollout: Rollout) -> None:
        """Raise ``CommandExecutionError`` if the step that would be approved is not reached yet."""
        if rollout.step_reached_at is None and not fleet.strategy.blue_green:
            raise CommandExecutionError(
                f"rollout {rollout.id} of fleet {rollout.fleet} has not reached step {rollout.step + 1} yet, so there "
                f"is nothing to approve; `salt-run fleet.status {rollout.fleet}` shows what it waits for"
            )

    def _require_not_paused(self, unfinished: Rollout | None) -> None:
        """Raise ``CommandExecutionError`` if an operator paused the rollout."""
        if unfinished and unfinished.paused_by == "operator":
            name = unfinished.fleet
            raise CommandExecutionError(
                f"fleet {name}: rollout {unfinished.id} is paused: {unfinished.reason}, "
                f"`salt-run fleet.abort {name}` ends it here"
            )

    def forecast_order(self, name: str, what: What | None) -> Forecast:
        """Return what an order to the rollout would do now; ``what`` None: to resume it."""
        ledger, now = self.ledger(name), self.clock()
        rollout = require_order(ledger.unfinished(), name, what)
        fleet = ledger.with_effective_size(self.find(name, allow_removed=True))
        orders = [Order(0, rollout.id, what, now, "", self.user)] if what else []
        machines = self.machines(fleet, ledger, now)
        steered = applied(revived(rollout, now), orders, now)
        actions, stuck = ([], None) if steered.outcome else forecast(fleet, steered, machines, now)
        image = self.image_name(ledger.generations().get(steered.target or 0))
        return Forecast(name, rollout.kind, rollout.source, image, tuple(actions), continues=True, stuck=stuck)

    def forecast(
        self,
        name: str,
        kind: Kind,
        *,
        generation: int | None = None,
        image: str | None = None,
        size: int | None = None,
    ) -> Forecast:
        """Return what a command of this kind would do now if nothing fails. Nothing is changed.

        Raises ``CommandExecutionError`` if the store was lost, as the command does.
        """
        self.require_store(name)
        ledger = Ledger(self.store, name)
        if kind == "destroy":
            return self._forecast(self.find(name, allow_removed=True), ledger, kind, None)
        fleet = self.definition(name)
        generation = _whole(generation, "generation") if generation is not None else None
        if kind == "rollback":
            found = self.access.recovery(fleet, ledger)
            unfinished = None if found.reasons else ledger.unfinished()
            if self._turns_back(unfinished, generation):
                return self.forecast_order(name, "back")
            return self._forecast(fleet, ledger, kind, self._rollback_target(ledger, generation), found=found)
        if kind in MENDING:
            found = self.access.recovery(fleet, ledger)
            sized = replace(fleet, size=found.size or ledger.effective_size(fleet.size))
            if kind == "scale":
                sized = replace(fleet, size=_whole(size, "size"))
                _require_size(sized)
            missing = {one.number: one.image for one in found.generations}
            good = last_good(ledger) if found.current is None else found.current
            return self._forecast(sized, ledger, kind, good, missing.get(good), sized=True, found=found)
        return self.forecast_roll(name, image)

    def forecast_roll(self, name: str, image: str | None = None) -> Forecast:
        """Return what a roll would do now if nothing fails, also if the store was lost, so that it would refuse."""
        fleet, ledger = self.definition(name), Ledger(self.store, name)
        digest, found = self._image(fleet, image), self.access.recovery(fleet, ledger)
        known = [*ledger.generations().values(), *found.generations]
        newest = max(known, key=lambda one: one.number, default=None)
        if newest and (newest.image, newest.provider) == (digest, fleet.provider):
            return self._forecast(fleet, ledger, "roll", newest.number, digest, found=found)
        return self._forecast(fleet, ledger, "roll", newest.number + 1 if newest else 1, digest, found=found)

    def check_plan(self, name: str, plan: str, image: str | None = None) -> tuple[SavedPlan, Forecast]:
        """Return a saved plan, and what a roll would do now; raise ``CommandExecutionError`` if they differ."""
        saved = Plans(self.store, name).find(plan)
        if image is not None:
            raise SaltInvocationError(f"image: plan {saved.id} has an image already; leave image out")
        forecast_ = self.forecast(name, "roll", image=saved.image)
        require_same(saved, self.ground(forecast_), forecast_.actions)
        return saved, forecast_

    def ground(self, forecast_: Forecast) -> dict[str, Any]:
        """Return everything that the forecast of a roll depends on; see `plans.ground`."""
        ledger = Ledger(self.store, forecast_.fleet)
        fleet = ledger.with_effective_size(self.definition(forecast_.fleet))
        image = self.store.image(str(forecast_.digest))
        return ground(fleet, image, forecast_.current, ledger.unfinished(), forecast_.machines)


def _whole(number: object, name: str) -> int:
    try:
        return (reading.count if name == "size" else reading.running_number)(number)
    except ValueError as err:
        raise SaltInvocationError(f"{name}: {err}") from err


def _require_size(fleet: Fleet) -> None:
    if fleet.size == 0 and not fleet.allow_outage:
        raise SaltInvocationError(
            f"size: with 0 machines nothing would serve; `salt-run fleet.destroy {fleet.name}` destroys the fleet, "
            f"or write allow_outage: true in immutable:fleets:{fleet.name}"
        )
    for sentence in conflicts(fleet):
        raise SaltInvocationError(f"size: with {fleet.size} machines {sentence}")


def require_order(rollout: Rollout | None, fleet: str, what: What | None) -> Rollout:
    """Return the rollout if an order can be given to it; raise ``CommandExecutionError`` otherwise.

    ``what`` None: to resume it.
    """
    if rollout is None:
        raise CommandExecutionError(
            f"fleet {fleet} has no running or paused rollout; `salt-run fleet.status {fleet}` shows its last one"
        )
    if why := refusal(rollout, what):
        raise CommandExecutionError(why)
    return rollout
