"""List, show and delete the images that the store knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from salt.exceptions import CommandExecutionError, SaltException

from saltext.immutable import minions, spec
from saltext.immutable.bake import image_tests, locks, parent_image
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.guard import refused_functions
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.store.revocations import failures
from saltext.immutable.worker import Worker

_ANSWERS_WITHIN = 5
"""Seconds that a command waits for the builder before it goes on without a warning."""
_NAMED = 5
"""How many images a sentence names."""


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store = Store.open(settings.store)
    try:
        yield store
    finally:
        store.close()


def warnings(opts: Mapping[str, Any]) -> list[str]:
    """Return a sentence if images lie on the builder that the store does not know: it may be older than they are.

    Nothing is said while images are baked or deleted, when the builder has some that the store does not know, or where
    the builder cannot be asked.
    """
    settings = spec.settings(opts)
    with _opened(settings) as store:
        if locks.is_at_work(store):
            return []
        there: Mapping[str, Any] = {}
        with suppress(SaltException, OSError):
            there = Worker(opts, settings, "image", LOCAL, _ANSWERS_WITHIN)("local_images")
        unknown = set(there) - {image.digest for image in store.images()}
        named = sorted(str(there[digest].get("image") or digest[:12]) for digest in unknown)
        return [_older(named)] if named else []


def _older(images: Sequence[str]) -> str:
    many = f"{len(images)} images on the builder are" if len(images) > 1 else "1 image on the builder is"
    more = ", ..." if len(images) > _NAMED else ""
    return (
        f"{many} unknown to the store ({', '.join(images[:_NAMED])}{more}): it may be older than they are, or a bake "
        "or a deletion was ended half-way; `salt-run image.bake` brings an image back from its layers, "
        "`salt-run image.prune` deletes those unknown"
    )


def table(settings: Settings, recipe: str | None, now: float) -> dict[str, dict[str, Any]]:
    """Return the images (of ``recipe``) by name, the newest first.

    Each has digest, age (seconds at time ``now``), size (bytes), layers (how many), channels, and why it was revoked or
    failed its tests (None: it was not).
    """
    with _opened(settings) as store:
        named = store.channels()
        revoked = {digest: one.reason for digest, one in store.revocations().items()}
        with store.read() as connection:
            failed = {digest: one.reason for digest, one in failures(connection).items()}
        return {image.name: _row(image, named, revoked, failed, now) for image in store.images(recipe)}


def _row(
    image: Image, named: Mapping[str, list[str]], revoked: Mapping[str, str], failed: Mapping[str, str], now: float
) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "age": int(now - image.created),
        "size": sum(layer.get("size", 0) for layer in image.report.get("layers", ())),
        "layers": len(image.layers),
        "channels": named.get(image.digest, []),
        "revoked": revoked.get(image.digest),
        "failed": failed.get(image.digest),
    }


def show(settings: Settings, ref: str) -> dict[str, Any]:
    """Return all that is known of one image.

    Its ``policy`` is that of `spec.policy`, with ``dangerous`` where it allows functions that can do anything.
    """
    with _opened(settings) as store:
        image = store.image(ref)
        report = dict(image.report)
        policy = _with_dangers(report.pop("policy", {}))
        channels = store.channels().get(image.digest, [])
        revoked = str(store.revocations().get(image.digest, "")) or None
        known = {"report": report, "policy": policy, "channels": channels, "revoked": revoked}
        results = image_tests.of_image(store, image.digest) or []
        wrong = image_tests.reason(results) if image_tests.failed(results) else None
        known |= {"failed": wrong, "tests": image_tests.summary(results)}
        return {"name": image.name, **asdict(image), **known}


def _with_dangers(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy with ``dangerous``: the functions it allows that run any command or write any file."""
    dangerous = refused_functions.dangerous(policy.get("guard", {}).get("allow", ()))
    return {**policy, **({"dangerous": dangerous} if dangerous else {})}


def delete(
    opts: Mapping[str, Any], ref: str, *, with_channels: bool, test: bool, who: str | None = None
) -> dict[str, Any]:
    """Delete an image that nothing needs; return its name and the layers that were deleted with it.

    ``with_channels``: also if channels name it; they are deleted too. ``test``: only find out whether it may be. Raises
    CommandExecutionError where something needs the image, or a bake is under way.
    """
    settings = spec.settings(opts)
    with _opened(settings) as store:
        image = store.image(ref)
        if recipes := parent_image.pinned(store, minions.definitions(opts)).get(image.digest):
            raise CommandExecutionError(
                f"image {image.digest[:12]} is needed by {', '.join(recipes)}; give them another one first"
            )
        store.delete_image(image.digest, with_channels=with_channels, test=True)
        builder = Worker(opts, settings, "image", LOCAL)
        builder("drop_image", digest=image.digest, test=True)
        if test:
            return {"image": image.name, "deleted": False, "comment": f"{image.name} would be deleted"}
        with locks.deleting(store):
            # The row first: files that a kill leaves are then in no row, and image.prune deletes them.
            store.delete_image(image.digest, with_channels=with_channels, who=who)
            gone = builder("drop_image", digest=image.digest)
        return {"image": image.name, "deleted": True, "layers": gone}
