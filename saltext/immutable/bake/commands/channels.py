"""Move channels to images and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import reading
from saltext.immutable.store import Image, Store
from saltext.immutable.store.channels import Move, What, earlier_images, moves
from saltext.immutable.store.revocations import Failure

Progress = Callable[..., None]
"""Called with a sentence, the tag of an event and the event's data for what was done."""


@dataclass(frozen=True)
class Channels:
    """The channels of one store, and what operators do with them."""

    store: Store
    progress: Progress
    who: str | None = None
    """The user who asked for it."""

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


def _channel(channel: str) -> str:
    try:
        return reading.name(channel)
    except ValueError as err:
        raise SaltInvocationError(f"channel: {err}") from err
