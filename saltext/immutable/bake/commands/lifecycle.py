"""Move channels to images and back; revoke images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import reading
from saltext.immutable.store import Image, Store, in_use, revocations
from saltext.immutable.store.channels import Move, What, earlier_images, moves
from saltext.immutable.store.revocations import Failure, Revocation

Progress = Callable[..., None]
"""Called with a sentence, the tag of an event and the event's data for what was done."""


@dataclass(frozen=True)
class Lifecycle:
    """The images of one store, and what operators do with them."""

    store: Store
    progress: Progress
    who: str | None = None
    """The user who asked for it."""

    # Channels

    def promote(self, ref: str, channel: str, reason: str = "", test: bool = False) -> dict[str, Any]:
        """Move a channel of the image's recipe to the image. Raises CommandExecutionError for a revoked image."""
        return self._moved(self.store.usable(ref), _channel(channel), "promote", reason, test)

    def rollback(self, recipe: str, channel: str, reason: str = "", test: bool = False) -> dict[str, Any]:
        """Move a channel back to the image before; revoked and deleted images are skipped.

        Raises SaltInvocationError where there is no such image.
        """
        history = self._history(recipe, _channel(channel))
        images, revoked = {image.digest: image for image in self.store.images(recipe)}, self.store.revoked()
        good = [images[digest] for digest in earlier_images(history) if digest in images and digest not in revoked]
        if not good:
            raise SaltInvocationError(
                f"{recipe}:{channel} named no image before that is there and not revoked; move it to another one: "
                f"`salt-run image.promote {recipe}@... channel={channel}`"
            )
        return self._moved(good[0], channel, "rollback", reason, test)

    def channels(self, recipe: str) -> dict[str, Any]:
        """Return a recipe's channels (by name: the image that each names) and history: the moves, the newest first."""
        known = _Names(self.store)
        with self.store.read() as connection:
            history = moves(connection, recipe)
        now = {
            channel: known.label(digest)
            for digest, named in self.store.channels().items()
            if known.recipe(digest) == recipe
            for channel in named
        }
        return {"recipe": recipe, "channels": now, "history": [known.line(one) for one in reversed(history)]}

    def _history(self, recipe: str, channel: str) -> list[Move]:
        with self.store.read() as connection:
            return [one for one in moves(connection, recipe) if one.channel == channel]

    def _moved(self, image: Image, channel: str, what: What, reason: str, test: bool) -> dict[str, Any]:
        recipe, known = image.recipe, _Names(self.store)
        source = self.store.channel(recipe, channel)
        report = {"image": image.name, "channel": f"{recipe}:{channel}", "from": known.name(source)}
        if source == image.digest:
            return {**report, "changed": False, "comment": f"{recipe}:{channel} names {image.name} already"}
        if test:
            return {**report, "changed": True, "comment": f"{recipe}:{channel} would name {image.name}"}
        self.store.set_channel(recipe, channel, image.digest, what=what, reason=reason, who=self.who)
        comment = f"{recipe}:{channel} names {image.name}"
        self.progress(comment, f"image/{what}", recipe=recipe, channel=channel, digest=image.digest, reason=reason)
        return {**report, "changed": True, "comment": comment}

    # Revocation

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


class _Names:
    """The names of images, also of those that were deleted."""

    def __init__(self, store: Store) -> None:
        self._known = {image.digest: image for image in store.images()}
        self._revoked = store.revoked()

    def recipe(self, digest: str) -> str | None:
        return self._known[digest].recipe if digest in self._known else None

    def name(self, digest: str | None) -> str | None:
        if digest is None:
            return None
        return self._known[digest].name if digest in self._known else f"{digest[:12]} (deleted)"

    def label(self, digest: str) -> str:
        """Return the name of an image, and why it may not be rolled, if so."""
        revocation = self._revoked.get(digest)
        if isinstance(revocation, Failure):
            return f"{self.name(digest)} ({revocation.reason})"
        return f"{self.name(digest)} (revoked: {revocation.reason})" if revocation else str(self.name(digest))

    def line(self, one: Move) -> dict[str, Any]:
        """Return a move of a channel as the history shows it."""
        at = datetime.fromtimestamp(one.at, timezone.utc).isoformat(sep=" ", timespec="seconds")
        way = {"from": self.name(one.source), "to": self.name(one.target)}
        return {"at": at, "channel": one.channel, "what": one.what, **way, "reason": one.reason, "who": one.who}


def descendants(image: Image, images: Sequence[Image]) -> list[Image]:
    """Return the other images whose layers begin with all the layers of ``image``."""
    size = len(image.layers)
    return [one for one in images if one.layers[:size] == image.layers and one.digest != image.digest]


def _reason(reason: str | None) -> str:
    if not reason or not str(reason).strip():
        raise SaltInvocationError("reason: say why, for those who read the history; write reason='...'")
    return str(reason)


def _channel(channel: str) -> str:
    try:
        return reading.name(channel)
    except ValueError as err:
        raise SaltInvocationError(f"channel: {err}") from err
