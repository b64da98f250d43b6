"""Revoke images, so that they are never rolled again, and undo that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.bake.commands.channels import Progress
from saltext.immutable.store import Image, Store, in_use, revocations
from saltext.immutable.store.revocations import Revocation


@dataclass(frozen=True)
class Revocations:
    """The images of one store, and which of them operators revoke."""

    store: Store
    progress: Progress
    who: str | None = None
    """The user who asked for it."""

    def revoke(self, ref: str, reason: str | None, cascade: bool = False, test: bool = False) -> dict[str, Any]:
        """Revoke an image: it is never rolled again. ``cascade``: also the images that were baked on top of it.

        Returns image, reason, revoked (names), descendants (name: whether it is revoked), channels, fleets, changed.
        """
        why, image = _reason(reason), self.store.image(ref)
        above, revoked = descendants(image, self.store.images()), self.store.revocations()
        meant = [image, *(above if cascade else ())]
        fresh = [one for one in meant if one.digest not in revoked]
        report: dict[str, Any] = {
            "image": image.name,
            "reason": why,
            "revoked": [one.name for one in fresh],
            "descendants": {one.name: one in fresh or one.digest in revoked for one in above},
            "channels": self._channels_of(meant),
            "fleets": self._fleets_of(meant),
            "changed": bool(fresh),
        }
        if test or not fresh:
            return report
        with self.store.write() as tx:
            for one in fresh:
                because = why if one is image else f"{image.name}, which it is built on, was revoked: {why}"
                row = Revocation(one.digest, one.name, self.store.clock(), because, self.who)
                revocations.add(tx, row)
        self.progress(f"revoked {', '.join(report['revoked'])}: {why}", "image/revoked", **report)
        return report

    def unrevoke(self, ref: str, reason: str | None, test: bool = False) -> dict[str, Any]:
        """Undo the revocation of an image.

        Returns image, changed, reason, and still_revoked: the images on top of it that were revoked too.
        """
        why, image = _reason(reason), self.store.image(ref)
        revoked = self.store.revocations()
        others = [one.name for one in descendants(image, self.store.images()) if one.digest in revoked]
        report = {"image": image.name, "changed": image.digest in revoked, "still_revoked": others, "reason": why}
        if report["changed"] and not test:
            with self.store.write() as tx:
                revocations.lift(tx, image.digest, self.store.clock(), why, self.who)
            self.progress(f"{image.name} is no longer revoked: {why}", "image/unrevoked", **report)
        return report

    def _channels_of(self, images: Iterable[Image]) -> list[str]:
        named = self.store.channels()
        return sorted(f"{one.recipe}:{channel}" for one in images for channel in named.get(one.digest, ()))

    def _fleets_of(self, images: Iterable[Image]) -> dict[str, dict[str, int]]:
        """Return the fleets that run any of these images, each image with its number of machines."""
        found: dict[str, dict[str, int]] = {}
        with self.store.read() as connection:
            for one in images:
                for fleet, machines in in_use.fleets_with(connection, one.digest).items():
                    found.setdefault(fleet, {})[one.name] = machines
        return found


def descendants(image: Image, images: Sequence[Image]) -> list[Image]:
    """Return the other images whose layers begin with all the layers of ``image``."""
    size = len(image.layers)
    return [one for one in images if one.layers[:size] == image.layers and one.digest != image.digest]


def _reason(reason: str | None) -> str:
    if not reason or not str(reason).strip():
        raise SaltInvocationError("reason: say why, for those who read the history; write reason='...'")
    return str(reason)
