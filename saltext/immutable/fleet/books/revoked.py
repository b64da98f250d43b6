"""What of a fleet is revoked, and what could take its place, from the books."""

from __future__ import annotations

from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.fleet.decide.reconcile import Revoked
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Image, Store

ON_THEIR_WAY = ("roll", "rollback")


def of_fleet(store: Store, fleet: Fleet, ledger: Ledger) -> Revoked:
    """Return what of a fleet is revoked; nothing is asked of the books where nothing is."""
    if not store.revoked():
        return Revoked()
    lineage, known = ledger.lineage(), ledger.generations()
    runs = revoked(store, ledger).get(known[lineage[-1]].image) if lineage else None
    named = _named(store, fleet)
    instead = named if named and runs and named.digest not in store.revoked() else None
    failed = _failed(ledger, instead.digest) if instead else None
    return Revoked(target(store, ledger, ledger.unfinished()), runs, instead.name if instead else None, failed)


def revoked(store: Store, ledger: Ledger) -> dict[str, str]:
    """Return why images of a fleet's generations must not be rolled any more, by digest."""
    images = {generation.image for generation in ledger.generations().values()}
    return {digest: str(one) for digest, one in store.revoked().items() if digest in images}


def revoked_now(store: Store, ledger: Ledger) -> list[str]:
    """Return why images that a fleet runs now, or has machines of, must not be rolled any more."""
    numbers = {*ledger.lineage()[-1:], *(record.generation for record in ledger.records().values())}
    images = {generation.image for number, generation in ledger.generations().items() if number in numbers}
    return sorted(why for digest, why in revoked(store, ledger).items() if digest in images)


def target(store: Store, ledger: Ledger, rollout: Rollout | None) -> str | None:
    """Return why a rollout must not go on to the image that it goes to; one that turns back goes elsewhere."""
    if rollout is None or rollout.kind not in ON_THEIR_WAY or rollout.direction != "forward":
        return None
    return revoked(store, ledger).get(ledger.generation(rollout.target or 0).image)


def _named(store: Store, fleet: Fleet) -> Image | None:
    """Return the image that a fleet's channel names."""
    try:
        return store.image(f"{fleet.recipe}:{fleet.channel}")
    except SaltInvocationError:
        return None


def _failed(ledger: Ledger, digest: str) -> str | None:
    """Return why the last roll to an image did not end well."""
    known = ledger.generations()
    for rollout in ledger.rollouts():
        if rollout.kind == "roll" and rollout.target and known[rollout.target].image == digest:
            return None if rollout.outcome in (None, "done", "paused") else rollout.reason or str(rollout.outcome)
    return None
