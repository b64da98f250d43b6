"""Which images of a fleet are revoked, and which image could replace them."""

from __future__ import annotations

from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.fleet.decide.reconcile import Revoked
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Fleet
from saltext.immutable.store import Image, Store

_TO_AN_IMAGE = ("roll", "rollback")
"""Kinds of rollouts that go to a chosen image."""


def of_fleet(store: Store, fleet: Fleet, ledger: Ledger) -> Revoked:
    """Return the revoked images of a fleet. (If no image is revoked at all, the ledger is not read.)"""
    if not store.revoked():
        return Revoked()
    lineage, known = ledger.lineage(), ledger.generations()
    runs = revoked(store, ledger).get(known[lineage[-1]].image) if lineage else None
    named = _named(store, fleet)
    instead = named if named and runs and named.digest not in store.revoked() else None
    failed = _failed(ledger, instead.digest) if instead else None
    target = revoked_target(store, ledger, ledger.unfinished())
    return Revoked(target, runs, instead.name if instead else None, failed)


def revoked(store: Store, ledger: Ledger) -> dict[str, str]:
    """Return digest to reason of the images of a fleet's generations that must not be rolled any more."""
    images = {generation.image for generation in ledger.generations().values()}
    return {digest: str(one) for digest, one in store.revoked().items() if digest in images}


def revoked_in_use(store: Store, ledger: Ledger) -> list[str]:
    """Return the reasons of the revoked images that are current in a fleet, or that machines of it run."""
    numbers = {*ledger.lineage()[-1:], *(record.generation for record in ledger.records().values())}
    images = {generation.image for number, generation in ledger.generations().items() if number in numbers}
    return sorted(why for digest, why in revoked(store, ledger).items() if digest in images)


def revoked_target(store: Store, ledger: Ledger, rollout: Rollout | None) -> str | None:
    """Return why the target image of a rollout is revoked; None if it is not, or if the rollout turns back."""
    if rollout is None or rollout.kind not in _TO_AN_IMAGE or rollout.direction != "forward":
        return None
    return revoked(store, ledger).get(ledger.generation(rollout.target or 0).image)


def _named(store: Store, fleet: Fleet) -> Image | None:
    """Return the image that a fleet's channel names, or None."""
    try:
        return store.image(f"{fleet.recipe}:{fleet.channel}")
    except SaltInvocationError:
        return None


def _failed(ledger: Ledger, digest: str) -> str | None:
    """Return why the last roll to an image failed, or None."""
    known = ledger.generations()
    for rollout in ledger.rollouts():
        if rollout.kind == "roll" and rollout.target and known[rollout.target].image == digest:
            return None if rollout.outcome in (None, "done", "paused") else rollout.reason or str(rollout.outcome)
    return None
